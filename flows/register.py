"""The gate before the alias, and the way back."""

from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, pause_flow_run, task
from prefect.cache_policies import NO_CACHE
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL

from flows.steps import check, opened, page_failure, read, without_set_aside
from pipeline.config import Settings, Source
from pipeline.data.labels import labelled
from pipeline.errors import RegistryError
from pipeline.monitoring.performance import PARTS
from pipeline.registry import champions, records
from pipeline.registry.champions import held, promote
from pipeline.registry.records import Batch
from pipeline.registry.versions import CHALLENGER, CHAMPION, Registry, Version
from pipeline.reporting.pages import Event, page
from pipeline.training.fitting import PREDICTION
from pipeline.training.gate import GateResult, judge, unusable
from pipeline.training.metrics import losses
from pipeline.training.model import Predictions

APPROVAL, RELEASE = "approval", "release"
"""What a version that passed may wait for."""
PATIENCE = 7 * 24 * 3_600
"""Seconds that a flow stays paused for people; afterwards the version can still be registered."""


@task(cache_policy=NO_CACHE)
def gate(settings: Settings, registry: Registry, number: int, by: str = "") -> GateResult:
    """Compare a version with the champion on the same newest rows; promote it if it wins."""
    champion = registry.alias(CHAMPION)
    if champion is not None and champion.number == number:
        message = f"Version {number} must be a challenger to be judged. It is the champion."
        raise RegistryError(message)
    registry.point(CHALLENGER, registry.version(number).number)
    decision = _judged(settings, registry, number, champion)
    # People are told before it is recorded: of a process that ends here they may hear twice.
    if not decision.promoted:
        subject = f"Version {number} of {settings.name} was refused"
        page(Event("gate", subject, decision.reason), settings.alerts.urls)
        registry.record_gate(number, decision)
        return decision
    registry.record_gate(number, decision)
    wait = _wait(settings, registry, by)
    if wait:
        subject = f"Version {number} of {settings.name} passed and waits for {wait}"
        cure = {
            APPROVAL: f"Approve it: register/{settings.name}, version {number}, approved_by.",
            RELEASE: f"Let it go on: release/{settings.name}. Held since: {held(registry)}",
        }
        page(Event("gate", subject, f"{decision.reason} {cure[wait]}"), settings.alerts.urls)
        registry.tag(number, {"waits": wait})
        return decision
    expected = None if champion is None else champion.number
    since = next_start(settings, registry, registry.version(number))
    promote(registry, number, expected=expected, since=since, by=by)
    return decision


def _wait(settings: Settings, registry: Registry, by: str) -> str:
    if held(registry):
        return RELEASE
    return APPROVAL if settings.promotion.approval == "manual" and not by else ""


def next_start(settings: Settings, registry: Registry, version: Version) -> pd.Timestamp:
    """Start of the first batch that a new champion judges: none that is recorded already."""
    recorded = records.batches(registry)
    if not recorded:
        return version.until
    end = pd.Timestamp(recorded[-1].name) + settings.monitoring.batch
    return max(end, version.until)


def _judged(
    settings: Settings, registry: Registry, number: int, champion: Version | None
) -> GateResult:
    """The gate's decision; a version that does not load here as it was logged is refused."""
    policy, data = settings.promotion, settings.data
    try:
        compared = _losses(settings, registry, number, champion)
    except RegistryError as error:
        if champion is not None:
            registry.bundle(champion.number)  # if this is what fails, no challenger is to blame
        return GateResult(promoted=False, reason=str(error), rows=0)
    predicted = registry.bundle(number).heldout[PREDICTION].to_numpy(dtype=np.float64)
    names = [name for name in ("challenger", "baseline", "champion") if name in compared]
    return judge(
        compared[names],
        times=compared[data.time],
        part=settings.monitoring.batch / PARTS,
        policy=policy,
        seed=settings.training.seed,
        slices=compared[[name for name in policy.slices if name in compared]],
        problems=unusable(predicted, chances=settings.task == "classification"),
    )


def _losses(
    settings: Settings, registry: Registry, number: int, champion: Version | None
) -> pd.DataFrame:
    """Loss of each row that neither the version nor the champion was fitted on.

    They are the newest rows that training held out, and those of the batches since that a
    version in shadow has scored.
    """
    data = settings.data
    version, bundle = registry.version(number), registry.bundle(number)
    # Training leaves these rows out as well, but a batch may have been set aside since.
    heldout, _ = without_set_aside(settings, registry, bundle.heldout)
    judged = _scored(settings, heldout, heldout[PREDICTION].to_numpy(dtype=np.float64))
    if champion is None or judged.empty:
        return judged
    rival = registry.bundle(champion.number).model
    newest = heldout[data.time].max() + pd.Timedelta("1us")
    rows = _valid(settings, registry, data.train, (heldout[data.time].min(), newest), number)
    kinds = list(settings.promotion.slices)
    own = judged[judged[data.time] >= champion.until]
    parts = [own.merge(rows[[data.key, *kinds]].assign(rival=rival.predict(rows)), on=data.key)]
    for batch in shadowed(registry, version):
        start = pd.Timestamp(batch.name)
        window = (start, start + settings.monitoring.batch)
        valid = _valid(settings, registry, data.live or data.train, window, number)
        known = labelled(valid, data, as_of=next_start(settings, registry, version))
        known = known.assign(baseline=heldout["baseline"].iloc[0])
        scored = _scored(settings, known, bundle.model.predict(known))
        parts.append(scored.assign(rival=rival.predict(known), **{k: known[k] for k in kinds}))
    compared = pd.concat(parts, ignore_index=True)
    truth = compared[data.target].to_numpy(dtype=np.float64)
    return compared.assign(champion=losses(settings.task, truth, compared["rival"].to_numpy()))


def _scored(settings: Settings, rows: pd.DataFrame, predicted: Predictions) -> pd.DataFrame:
    """Rows with the loss of predictions, and that of the trivial baseline."""
    data = settings.data
    truth = rows[data.target].to_numpy(dtype=np.float64)
    trivial = rows["baseline"].to_numpy(dtype=np.float64)
    return rows[[data.key, data.time, data.target]].assign(
        challenger=losses(settings.task, truth, predicted),
        baseline=losses(settings.task, truth, trivial),
    )


def _valid(
    settings: Settings,
    registry: Registry,
    source: Source,
    window: tuple[pd.Timestamp, pd.Timestamp],
    number: int,
) -> pd.DataFrame:
    """Valid rows of a window, without those of batches that are set aside."""
    rows, _ = without_set_aside(settings, registry, read(settings, source, *window))
    return check(settings, rows, f"held out for version {number}").valid


def shadowed(registry: Registry, version: Version) -> list[Batch]:
    """Batches that a version in shadow has scored, with all their labels."""
    if not version.tags.get("shadow"):
        return []
    return [
        one
        for one in records.batches(registry)
        if pd.Timestamp(one.name) >= version.until and one.performance and not one.set_aside
    ]


class Approval(RunInput):
    """What a person says of a version that passed."""

    approve: bool = False
    by: str
    comment: str = ""


def ask_people(settings: Settings, registry: Registry, number: int) -> None:
    """Pause for the approval of a version that waits for it, where a server can carry it."""
    version = registry.version(number)
    if version.tags.get("waits") != APPROVAL or PREFECT_API_URL.value() is None:
        return
    text = f"**Version {number} of {settings.name} passed.** {version.tags['reason']}"
    asked = Approval.with_initial_data(description=text, by="")
    answer = pause_flow_run(wait_for_input=asked, timeout=PATIENCE, key=f"version-{number}")
    if answer.approve:
        gate(settings, registry, number, answer.by)
    else:
        reason = f"Not approved by {answer.by}. {answer.comment}".strip()
        registry.tag(number, {"reason": reason, "waits": "", "gate": "refused"})


@flow(name="register", on_failure=[page_failure])
def register(conf: str, version: int, approved_by: str = "") -> dict[str, Any]:
    """Put an existing version before the gate, and promote it if it passes."""
    settings, registry = opened(conf)
    gate(settings, registry, version, approved_by)
    ask_people(settings, registry, version)
    tags = registry.version(version).tags
    return {"version": version, "promoted": bool(tags.get("champion")), "reason": tags["reason"]}


@flow(name="rollback", on_failure=[page_failure])
def rollback(conf: str, reason: str = "asked for by hand") -> dict[str, int]:
    """Make the previous champion champion again; no other is promoted until `release`."""
    settings, registry = opened(conf)
    since = next_start(settings, registry, registry.champion())
    before, now = champions.rollback(registry, reason, since=since)
    return {"from": before, "to": now}


@flow(name="release", on_failure=[page_failure])
def release(conf: str) -> dict[str, Any]:
    """Let versions be promoted again; the newest that waited comes before the gate at once."""
    settings, registry = opened(conf)
    champions.release(registry)
    waiting = [one.number for one in registry.versions() if one.tags.get("waits") == RELEASE]
    for number in waiting[-1:]:
        gate(settings, registry, number)
    return {"champion": registry.champion().number, "waited": waiting}
