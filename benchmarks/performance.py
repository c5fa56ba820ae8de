"""Lost performance: is it named when its labels come, and what are promises of the gate worth?"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml
from sklearn.linear_model import LogisticRegression

from benchmarks import retraining
from benchmarks.batches import labelled
from benchmarks.batches.sliced import slices
from benchmarks.harness import estimates
from benchmarks.harness.command import Result, at_least, at_most, options, run_parts
from benchmarks.harness.processes import holdfast, side_by_side
from flows.settle import promises_kept
from pipeline.columns import Floats, infer_columns
from pipeline.config import Settings
from pipeline.monitoring.means import Baseline
from pipeline.monitoring.performance import Performance, realised
from pipeline.registry import records
from pipeline.registry.versions import Registry
from pipeline.training.metrics import losses

START: Final = pd.Timestamp("2026-01-05")
WEEK: Final = pd.Timedelta("7D")
HOURS: Final = 24 * 7
TRAINED, FLIPPED = 12, range(16, 20)
"""Weeks that the first version is trained on, and weeks whose labels are flipped."""
DELAYS: Final = (0, 1, 6, 7, 14, 28)
KNOWN: Final = 200
"""Flipped labels that have to be known before they must be named."""
TURN: Final = 2.0
"""Degrees by which the true direction turns each week, where the concept decays."""
GROWTH: Final = 0.02
"""Share of the first loss by which it grows each month, in a slow decline."""
WEEKS_OF_A_MONTH: Final = 365.25 / 12 / 7


def main() -> int:
    parser = options("performance", __doc__, quick="one delay, two years of each kind")
    return run_parts(parser, PARTS)


def late_labels(seed: int, *, quick: bool) -> Result:
    """Labels flipped for four weeks, known late: the run that names it, by whole replays."""
    delays = DELAYS[3:4] if quick else DELAYS
    found = side_by_side(partial(_flipped, seed), delays)
    figures = {f"{delay} days": one for delay, one in zip(delays, found, strict=True)}
    late = sum(one["named"] > one["first_possible"] for one in found)
    return figures, [at_most("delays named after the first possible run", late, 0)]


def _flipped(seed: int, delay: int) -> dict[str, Any]:
    weeks = FLIPPED[-1] + 2 + -(-delay // 7)
    rows = simulated(seed, weeks)
    week = (rows["at"] - START) // WEEK
    wrong = week.isin(FLIPPED)
    rows["won"] = rows["won"].where(~wrong, 1 - rows["won"])
    story = replayed(rows, delay=delay)
    ends = [START + (TRAINED + 1 + place) * WEEK for place in range(len(story))]
    known = [int((wrong & (rows["at"] + pd.Timedelta(days=delay) <= end)).sum()) for end in ends]
    first = next(place for place, count in enumerate(known) if count >= KNOWN)
    named = [
        place
        for place, batch in enumerate(story)
        if batch["action"] in {"page", "retrain"}
        and "performance was lost" in batch["reason"].lower()
    ]
    return {
        "first_possible": story[first]["batch"],
        "named": story[named[0]]["batch"] if named else "never",
        "action": story[named[0]]["action"] if named else "none",
        "reason": story[named[0]]["reason"] if named else "",
    }


def nothing_wrong(seed: int, *, quick: bool) -> Result:
    """Weekly batches of a model that stays as good as it was: decisions for performance."""
    weeks = 4 if quick else 240
    story = replayed(simulated(seed, TRAINED + weeks), delay=7)
    wrong = [batch["batch"] for batch in story if "performance was lost" in batch["reason"].lower()]
    figures = {"batches": len(story), "decisions_for_performance": len(wrong)}
    return figures, [at_most("decisions for performance", len(wrong), 0)]


def simulated(seed: int, weeks: int) -> pd.DataFrame:
    """Hourly rows, in stretches of ten, of two numbers and one label; the relation stays."""
    random = np.random.default_rng([seed, 11])
    n = weeks * HOURS * 4
    x = random.normal(size=(n, 2))
    score = 1.5 * x[:, 0] - x[:, 1] + random.logistic(size=n)
    return pd.DataFrame(
        {
            "id": [f"r{place}" for place in range(n)],
            "at": pd.date_range(START, periods=n, freq="15min", unit="us"),
            "x0": x[:, 0],
            "x1": x[:, 1],
            "won": (score > 0.5).astype(float),
        }
    )


def replayed(rows: pd.DataFrame, *, delay: int) -> list[dict[str, Any]]:
    """What a replay of all weeks after training tells, batch by batch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conf = written(folder, rows, delay=delay)
        story: list[dict[str, Any]] = holdfast("replay", conf, folder=folder)["batches"]
    return story


def written(folder: Path, rows: pd.DataFrame, *, delay: int) -> Path:
    """The model's file of simulated rows, which are beside it."""
    rows.to_parquet(folder / "rows.parquet")
    conf = folder / "simulated.yaml"
    conf.write_text(yaml.safe_dump(_settings(folder, delay)), encoding="utf-8")
    return conf


def _settings(folder: Path, delay: int) -> dict[str, Any]:
    return {
        "name": "simulated",
        "task": "classification",
        "data": {
            "train": {"kind": "file", "path": str(folder / "rows.parquet")},
            "key": "id",
            "time": "at",
            "target": "won",
            "label_delay": f"{delay}D",
            "features": {"x0": {"type": "numeric"}, "x1": {"type": "numeric"}},
        },
        "training": {
            "params": {"n_estimators": 40, "max_depth": 3, "n_jobs": 1},
            "until": f"{START + TRAINED * WEEK:%Y-%m-%d}",
        },
        "tracking": {"folder": str(folder / "state")},
    }


def decay(seed: int, *, quick: bool) -> Result:
    """A true direction that turns by 2 degrees a week, labels four weeks late: when is it named?"""
    turning, still = (2, 2) if quick else (20, 100)
    found = side_by_side(partial(_year, TURN), range(seed, seed + turning))
    first = [_named(one) for one in found]
    calm = side_by_side(partial(_year, 0.0), range(seed, seed + still))
    episodes = [
        sum(now and not before for before, now in zip([False, *one], one, strict=False))
        for one in calm
    ]
    figures: dict[str, Any] = {
        "years": {"turning": turning, "still": still},
        "median_first_week": float(np.median(first)),
        "false_episodes_a_year": float(np.mean(episodes)),
    }
    return figures, [
        at_most("median first week", figures["median_first_week"], 16),
        at_most("false episodes a year", figures["false_episodes_a_year"], 0.1),
    ]


def decline(seed: int, *, quick: bool) -> Result:
    """A loss that grows by 2% of what it was a month, labels four weeks late: when is it named?"""
    years = 2 if quick else 40
    found = side_by_side(partial(_year, 0.0, growth=GROWTH), range(seed, seed + years))
    months = [_named(one) / WEEKS_OF_A_MONTH for one in found]
    figures: dict[str, Any] = {
        "years": years,
        "median_months": float(np.median(months)),
        "latest_months": float(np.max(months)),
    }
    return figures, [at_most("median months until it is named", figures["median_months"], 4)]


def _named(worse: list[bool]) -> int:
    """Week in which labels, four weeks late, show the first loss; 99: never within the year."""
    return next((k + 5 for k, lost in enumerate(worse) if lost), 99)


def _year(turn: float, seed: int, growth: float = 0.0) -> list[bool]:
    """Whether performance is lost in each week, up to the first week of a decay that shows it.

    The loss of each row is multiplied as it grows, by `growth` of what it was a month.
    """
    random = np.random.default_rng([seed, 12])

    def draw(rows: int, angle: float) -> tuple[Floats, Floats]:
        x = random.normal(size=(rows, 10))
        score = 1.7 * (np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1])
        return x, (random.random(rows) < 1 / (1 + np.exp(-score))).astype(float)

    halves = [draw(10_000, 0.0) for _ in range(2)]
    fits = [LogisticRegression().fit(*half) for half in halves]

    def loss(x: Floats, y: Floats, place: int) -> Floats:
        return losses("log_loss", y, fits[place].predict_proba(x)[:, 1])

    before = np.concatenate([loss(*halves[0], 1), loss(*halves[1], 0)])
    at = pd.date_range(START - 10 * WEEK, periods=len(before), freq=10 * WEEK / len(before))
    baseline = Baseline.of(pd.Series(before, at), WEEK, heavy=False)
    judged: list[Performance] = []
    for week in range(52):
        x, y = draw(2_000, np.radians(turn * (week + 1)))
        now = np.concatenate([loss(x[half::2], y[half::2], half) for half in (0, 1)])
        now *= 1 + growth * (week + 1) / WEEKS_OF_A_MONTH
        at = pd.date_range(START + week * WEEK, periods=len(now), freq=WEEK / len(now))
        judged.append(
            realised(
                batch=f"{week}",
                metrics={},
                current=pd.Series(now, at),
                baseline=baseline,
                length=WEEK,
                allowed=0.05,
                earlier=judged,
            )
        )
        if (turn or growth) and judged[-1].worse:
            break
    return [one.worse for one in judged]


def kept(seed: int, *, quick: bool) -> Result:
    """Real tables: what the policy keeps of the gain of retraining at every batch, and promises."""
    names = ["bank_marketing"] if quick else list(labelled.TABLES)
    found = side_by_side(partial(_kept, seed), names)
    figures: dict[str, Any] = dict(zip(names, found, strict=True))
    promises = [one for table in found for one in table["promises"]]
    gaps = np.array([one["promised"] - one["realised"] for one in promises])
    goals = [
        at_most(f"{name}: loss beyond that of the first model left alone", one["worse_by"], 0.01)
        for name, one in figures.items()
    ]
    goals += [
        at_least(f"{name}: gain kept", figures[name]["kept"], share)
        for name, share in (("bank_marketing", 0.7), ("hotel_bookings", 0.85))
        if name in figures
    ]
    if len(gaps) > 1:
        error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
        figures["promised_less_realised"] = {"mean": float(gaps.mean()), "standard_error": error}
        goals.append(at_most("promised less realised", abs(float(gaps.mean())), 2 * error))
    return figures, goals


def _kept(seed: int, name: str) -> dict[str, Any]:
    table = labelled.TABLES[name]()
    with tempfile.TemporaryDirectory() as folder:
        conf = conf_of(Path(folder), table, seed)
        story = holdfast("replay", conf, folder=Path(folder))["batches"]
        settings = Settings.load(str(conf))
        registry = Registry(settings.name, settings.tracking)
        versions = {version.number: version for version in registry.versions()}
        history = records.read_history(registry)
        promises = promises_kept(versions.values(), history, settings.loss)
        every = _every_batch(settings, story)
    loss = settings.loss
    scored = [
        (batch["maintained"][loss], batch["alone"][loss], retrained, batch["rows"])
        for batch, retrained in zip(story, every, strict=True)
        if batch["maintained"] and batch["alone"] and np.isfinite(retrained)
    ]
    values, rows = np.array([one[:3] for one in scored]), np.array([one[3] for one in scored])
    maintained, alone, each = np.average(values, axis=0, weights=rows).tolist()
    return {
        "batches": len(story),
        "broken": sum(batch["outcome"] in {"broken", "mixed"} for batch in story),
        "retrains": sum(batch["action"] == "retrain" for batch in story),
        "champions": len({batch["version"] for batch in story}),
        "pages": sum(batch["action"] != "none" for batch in story),
        "refused": [v.reason for v in versions.values() if not v.promoted],
        loss: {"maintained": maintained, "left_alone": alone, "every_batch": each},
        "kept": (alone - maintained) / (alone - each) if alone > each else float("nan"),
        "worse_by": maintained / alone - 1,
        "promises": [
            {
                "version": one.version,
                "gate": one.promised,
                "promised": float(versions[one.version].tags["expected_gain"]),
                "realised": one.realised,
                "rows": one.rows,
            }
            for one in promises
        ],
    }


def conf_of(folder: Path, table: labelled.Table, seed: int) -> Path:
    """The model's file of a table, and its rows beside it."""
    table.rows.to_parquet(folder / "rows.parquet")
    roles = [labelled.KEY, labelled.TIME, labelled.TARGET, labelled.LABEL_TIME]
    features = infer_columns(table.rows.drop(columns=roles, errors="ignore"))
    kind = "Classifier" if table.task == "classification" else "Regressor"
    data = {
        "train": {"kind": "file", "path": str(folder / "rows.parquet")},
        "key": labelled.KEY,
        "time": labelled.TIME,
        "target": labelled.TARGET,
        "features": {
            name: {"type": column.type, "nullable": True} for name, column in features.items()
        },
    }
    if table.label_time:
        data["label_time"] = labelled.LABEL_TIME
    values = {
        "name": "kept",
        "task": table.task,
        "data": data,
        "training": {
            "estimator": f"xgboost.XGB{kind}",
            "params": {"n_estimators": 150, "learning_rate": 0.05, "max_depth": 4, "n_jobs": 1},
            "until": f"{table.until}",
            "seed": seed,
        },
        "promotion": {"first": "serve"},
        "monitoring": {"batch": table.batch},
        "tracking": {"folder": str(folder / "state")},
    }
    conf = folder / "kept.yaml"
    conf.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return conf


def _every_batch(settings: Settings, story: list[dict[str, Any]]) -> list[float]:
    """Loss of each batch by a model of all labels that were known when it began."""
    history = retraining.History(settings)
    found = []
    for batch in story:
        start = pd.Timestamp(batch["batch"])
        inside = ((history.times >= start) & (history.times < start + history.length)).to_numpy()
        if not inside.any():
            found.append(float("nan"))
            continue
        predicted = history.fit(start, None).predict_encoded(history.x[inside])
        found.append(float(losses(settings.loss, history.y[inside], predicted).mean()))
    return found


def estimate(seed: int, *, quick: bool) -> Result:
    """Estimates before labels come, on real tables, beside what the labels show."""
    return estimates.measure(seed, quick=quick)


PARTS = (late_labels, nothing_wrong, decay, decline, slices, kept, estimate)


if __name__ == "__main__":
    raise SystemExit(main())
