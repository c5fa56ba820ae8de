"""The report of a batch: one page that says what happened, how bad, since when, why, what to do.

It is made of the stored comparison, so that it can be made again when more is known. The page needs
no script and no other file, because MLflow shows artifacts in a sandbox.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipeline.config import RESERVED
from pipeline.monitoring.estimate import Estimate
from pipeline.monitoring.findings import FLOORS
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.stored import drifted_of, rows_of
from pipeline.monitoring.verdicts import Evidence, State, Verdict, state_of
from pipeline.reporting.advice import Answered, action_of, how_bad, since, why
from pipeline.reporting.drawing import HEIGHT
from pipeline.reporting.estimated import estimated, expected_change
from pipeline.reporting.rendering import page
from pipeline.reporting.shapes import shape
from pipeline.reporting.wording import STATES, after, change, measured, middle, named

SHOWN = 30
"""Batches of the strip, and columns and pairs that are not folded."""
_OPEN = 20
"""Columns that are not folded."""
_SENTENCES = 6
"""Sentences about what moved."""
_FADED = FLOORS["rows"]["missing"]
"""Change of the share of missing values from which a column is listed."""
_NO_TABLE: dict[str, list[Any]] = {"columns": [], "data": []}


@dataclass(frozen=True)
class Past:
    """A batch of the strip.

    Attributes
    ----------
    name : str
        Start of its window, ISO.
    state : str
        The batch in one word.
    action, reason : str
        What was done, and why.
    version : int
        The champion that judged it.
    change : float or None
        Relative change of the loss; None: not known yet.
    expected : float or None
        The change as it was estimated before labels came; None: nothing was said.
    """

    name: str
    state: State
    action: str
    version: int
    change: float | None = None
    expected: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class About:
    """What is known of a batch beside its comparison.

    Attributes
    ----------
    model, conf : str
        Name of the model and path of its file.
    verdict : Verdict
        Evidence and decision.
    start, end : Timestamp
        Its window.
    quarantined : int
        Refused rows.
    loss : str
        Name of the loss.
    usual_loss : float
        Mean loss on rows of training that the model had not seen; NaN: unknown.
    allowed : float
        Relative increase of the loss that is still accepted.
    labels_due : Timestamp
        When its labels are due.
    made : str
        When the page was made.
    past : sequence of Past
        The batches before it, oldest first.
    performance : Performance or None
        Of this batch; None: no label has come.
    metrics : mapping of str to float
        Of the trained model on held-out rows.
    where : mapping of str to str
        Where to see more: a name and an address or a command.
    answered : Answered or None
        What people have answered for it; None: nothing yet.
    estimates : sequence of Estimate
        Its metrics, as they were estimated before its labels came.
    waiting : sequence of str
        Other batches that are set aside until somebody answers for them.
    diagnosed : bool
        Whether faults were looked for in it.
    reading : int
        How often it was read from its source.
    not_sliced : sequence of str
        Which of the configured slices are not judged, and why.
    overdue : sequence of str
        Batches before it whose labels were due before its end, and of which none has come.
    before : int or None
        Version that one could go back to from the one that judged it; None: there is none.
    """

    model: str
    conf: str
    verdict: Verdict
    start: pd.Timestamp
    end: pd.Timestamp
    quarantined: int
    loss: str
    usual_loss: float
    allowed: float
    labels_due: pd.Timestamp
    made: str
    past: Sequence[Past]
    performance: Performance | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    answered: Answered | None = None
    estimates: Sequence[Estimate] = ()
    waiting: Sequence[str] = ()
    diagnosed: bool = True
    reading: int = 1
    not_sliced: Sequence[str] = ()
    overdue: Sequence[str] = ()
    before: int | None = None

    @property
    def state(self) -> State:
        """The batch in one word."""
        known, evidence = self.performance, self.verdict.evidence
        late = bool(known and known.faults)
        worse = bool(evidence.worse) or bool(known and known.worse)
        return state_of(alarm=evidence.alarm, broken=bool(evidence.broken) or late, worse=worse)

    @property
    def own(self) -> Past:
        """The batch as the last one of the strip."""
        evidence, known = self.verdict.evidence, self.performance
        decision = self.verdict.decision
        return Past(
            evidence.batch,
            self.state,
            decision.action,
            evidence.version,
            _change(known, evidence),
            expected_change(self.estimates, self.loss, self.usual_loss),
            decision.reason,
        )


def batch_report(record: Mapping[str, Any], about: About) -> str:
    """Make the page of a batch.

    Parameters
    ----------
    record : mapping of str to Any
        The comparison, as `stored.to_record` keeps it.
    about : About
        What else is known of the batch.

    Returns
    -------
    str
        HTML, complete in itself.
    """
    drawn = {one["column"]: one for one in rows_of(record["shapes"])}
    columns = _columns(record, drawn, about)
    features = [column for column in columns if not column["reserved"]]
    length = about.end - about.start
    moved = _moved(record, drawn, about, length)
    evidence, decision = about.verdict.evidence, about.verdict.decision
    return page(
        "batch_report.html.j2",
        title=f"{about.model} {about.start:%Y-%m-%d %H:%M}: {STATES[about.state]}",
        about=about,
        record=record,
        word=STATES[about.state],
        action=action_of(about.state, decision, about.answered),
        evidence=evidence,
        decision=decision,
        how_bad=how_bad(about.state, evidence, about.performance),
        since=since(
            about.state,
            [(one.state, one.name) for one in about.past],
            sudden=_is_sudden(evidence, record),
        ),
        refused=record.get("refused", {}),
        reason=after(STATES[about.state], decision.reason),
        causes=[_cause(cause, drawn) for cause in record["causes"]],
        why=why(about.state, evidence, features, moved, diagnosed=about.diagnosed),
        moved=moved,
        features=features,
        open=_OPEN,
        predictions=[column for column in columns if column["reserved"]],
        indicators=[_indicator(one) for one in rows_of(record.get("indicators", _NO_TABLE))],
        drifts=rows_of(record.get("slices", _NO_TABLE)),
        incomplete=[one for one in features if one["faded"] or one["new"]],
        pairs=[_pair(pair) for pair in rows_of(record["pairs"])[:SHOWN]],
        strip=_strip([*about.past, about.own][-SHOWN:]),
        states=STATES,
        a_year=pd.Timedelta(days=365.25) / length,
        performance=_performance(about),
        decided_by=evidence.measured and measured(evidence),
        estimated=estimated(
            about.estimates,
            loss=about.loss,
            usual_loss=about.usual_loss,
            allowed=about.allowed,
            realised={} if about.performance is None else about.performance.metrics,
        ),
    )


def _is_sudden(evidence: Evidence, record: Mapping[str, Any]) -> bool:
    """Whether drift persists by what this batch shows alone."""
    lasting = [one for one in drifted_of(record) if one["name"] in evidence.persisted]
    return bool(lasting) and all(one["since"] == 1 and one["level"] != "decay" for one in lasting)


def _change(known: Performance | None, evidence: Evidence) -> float | None:
    """Change of a batch's loss as far as its labels were known; None: no label had come."""
    if known is not None:
        return known.change
    return evidence.change if evidence.measured == evidence.batch else None


def _cause(cause: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    if cause["cause"] == "schema":  # the rows that tell are refused, and not drawn
        return {**cause, "figures": []}
    shown = [(name, shape(drawn[name])) for name in cause["columns"] if name in drawn]
    return {**cause, "figures": [(name, figure) for name, figure in shown if figure][:6]}


def _moved(
    record: Mapping[str, Any], drawn: Mapping[str, Any], about: About, length: pd.Timedelta
) -> list[dict[str, str]]:
    """Sentences about drift, each with the start of the first batch that it covers."""
    found, seen = [], set()
    for one in drifted_of(record):
        if one["name"] in seen:
            continue
        seen.add(one["name"])
        first = about.start - (one["since"] - 1) * length
        text = change(one, record["batches"], drawn)
        begun = f"; since {first:%Y-%m-%d}" if one["since"] > 1 else ""
        found.append({"text": text, "since": begun})
    return found[:_SENTENCES]


def _columns(
    record: Mapping[str, Any], drawn: Mapping[str, Any], about: About
) -> list[dict[str, Any]]:
    """Every column, the one with the largest loss at stake first.

    A column's values in all rows shuffled would change the loss by its importance. If they moved in
    a share of the rows only, about that share of it is at stake.
    """
    found = []
    for column in rows_of(record["columns"]):
        one = drawn.get(column["name"])
        before, now = one["missing"] if one else (None, None)
        faded = 0.0 if before is None or now is None else now - before
        size = max(column["distance"] or 0.0, abs(faded))
        reliance = abs(column["importance"] or 0.0) / about.usual_loss
        known = column["importance"] is not None and math.isfinite(reliance)
        found.append(
            {
                **column,
                "shown": named(column["name"]),
                "reserved": column["name"].startswith(RESERVED),
                "figure": shape(one) if one else None,
                "summary": middle(one) if one else "private, not drawn",
                "size": size,
                "reliance": reliance if known else None,
                "harm": size * reliance if known else None,
                "faded": faded if abs(faded) >= _FADED else 0.0,
                "missing_before": before,
                "new": one["new"] if one else {},
            }
        )
    return sorted(found, key=_harm)


def _harm(column: Mapping[str, Any]) -> tuple[float, float, str]:
    return (-(column["harm"] or 0.0), -column["size"], column["name"])


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    known = pair["before"] is not None and pair["now"] is not None
    places = [100 + 100 * (pair[side] or 0.0) for side in ("before", "now")] if known else []
    return {**pair, "shown": " and ".join(named(name) for name in pair["columns"]), "at": places}


def _indicator(one: Mapping[str, Any]) -> dict[str, Any]:
    """An indicator in words; what is undefined or unbounded is empty."""
    ends = {
        key: "" if one[key] is None else f"{one[key]:+.1%}" for key in ("change", "low", "high")
    }
    return {**one, **ends}


def _strip(past: Sequence[Past]) -> dict[str, Any]:
    """The last batches as marks in a row, with the change of their loss below."""
    both = [change for one in past for change in (one.change, one.expected)]
    changes = [change for change in both if change is not None and math.isfinite(change)]
    top = max([0.1, *map(abs, changes)])
    before = [past[0], *past[:-1]]
    marks: list[dict[str, Any]] = [
        {
            "one": one,
            "x": 20 * place,
            "new": one.version != earlier.version,
            "size": _height(one.change, top),
            "expected": _height(one.expected, top),
            "loss": _loss(one),
        }
        for place, (earlier, one) in enumerate(zip(before, past, strict=True))
    ]
    counts = Counter(one.state for one in past)
    said = ", ".join(f"{one.name[:10]} {STATES[one.state].lower()}" for one in past)
    promoted = [mark["one"].version for mark in marks if mark["new"]]
    return {
        "marks": marks,
        "width": 20 * SHOWN,
        "counts": [(state, word, counts[state]) for state, word in STATES.items() if counts[state]],
        "first": past[0].name[:10],
        "last": past[-1].name[:10],
        "words": f"The last {len(past)} batches: {said}",
        "has_loss": bool(changes),
        "has_estimate": any(one.expected is not None for one in past),
        "promoted": promoted[0] if promoted else None,
    }


def _height(change: float | None, top: float) -> float | None:
    """How far a bar goes from the middle, down the page; None: nothing to draw."""
    if change is None or not math.isfinite(change):
        return None
    return -round(HEIGHT / 2 * change / top, 1)


def _loss(one: Past) -> str:
    if one.change is not None and math.isfinite(one.change):
        return f"{one.change:+.1%}"
    return "not known" if one.expected is None else f"estimated {one.expected:+.1%}"


def _performance(about: About) -> dict[str, Any] | None:
    """The change of the loss with its interval, on an axis from the baseline to what is allowed."""
    found = about.performance
    if found is None:
        return None
    own = about.verdict.evidence.version
    high = 2 * found.change - found.at_least
    reach = max(2 * about.allowed, abs(found.change) * 1.3, 0.1)
    ends = [found.at_least, found.change, high, about.allowed]
    known = all(math.isfinite(end) for end in ends)
    verdict = "That is within what is allowed, as far as these labels show."
    if found.worse:
        verdict = "Performance is lost."
    elif found.change > about.allowed:
        verdict = "That may be chance: no loss of performance is certain."
        if found.at_least > 0:
            verdict = "It is larger; that it is more than is allowed is not certain."
    return {
        "found": found,
        "together": any(one.change is not None for one in about.past if one.version == own),
        "verdict": verdict,
        "size": f"{abs(found.change):.1%} {'higher' if found.change > 0 else 'lower'} than",
        "high": high,
        "at": [round(200 + 200 * min(max(end / reach, -1), 1)) for end in ends] if known else [],
        "metrics": [
            (name, value, about.metrics.get(name)) for name, value in found.metrics.items()
        ],
    }
