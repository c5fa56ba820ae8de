"""Compare policies of retraining on the rows of the past, and recommend one."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from prefect import flow

from flows import terminal
from flows.lived import in_own_store, lived
from flows.notes import OF_A_MODEL, note
from flows.processes import WORKERS, Say, Work, side_by_side
from flows.settle import live_source
from flows.steps import check, opened, patient, read, read_training
from pipeline.backtest import fits, policies
from pipeline.backtest.fits import Fit, Span
from pipeline.backtest.policies import WATCHED, Run
from pipeline.backtest.recommendation import Recommendation, recommend
from pipeline.columns import Floats, Matrix
from pipeline.config import Settings, edited
from pipeline.errors import DataError
from pipeline.registry import environment
from pipeline.registry.backtests import NOTE, record_backtest
from pipeline.registry.versions import Registry
from pipeline.reporting.backtests import backtest_note, picture


class Past(NamedTuple):
    """What policies are compared on.

    Attributes
    ----------
    folder : Path
        Where rows and fits are kept.
    span : Span
        The live batches.
    rows : array of float, shape (n_batches,)
        Rows of each batch with a label.
    """

    folder: Path
    span: Span
    rows: Floats


class Compared(NamedTuple):
    """Policies beside one another.

    Attributes
    ----------
    runs : list of Run
        What each did.
    losses : array of float, shape (n_batches, n_batches)
        Of the fits before each batch.
    rows : array of float, shape (n_batches,)
        Rows of each batch with a label.
    span : Span
        The batches.
    broken : list of str
        Batches that the configured monitor set aside.
    """

    runs: list[Run]
    losses: Matrix
    rows: Floats
    span: Span
    broken: list[str]


@flow(name="backtest", **OF_A_MODEL)
def backtest(conf: str, cost: float = 0.0, *, apply: bool = False) -> dict[str, Any]:
    """Compare policies of retraining on the past rows, recommend one, and write it into the file.

    `cost` is that of a retrain, as a share of the loss of the first model on one batch. Fits are
    kept in the state folder, so that a comparison that was ended goes on.
    """
    settings, registry = opened(conf)
    with registry.exclusive("backtest"):
        compared = compare(settings, registry.folder / "backtest" / settings.name)
        results = policies.outcomes(compared.runs, compared.losses, compared.rows, cost=cost)
        each = policies.cost_of_retrain(compared.losses, compared.rows, cost)
        advice = recommend(
            compared.runs, results, compared.rows, each=each, seed=settings.training.seed
        )
        result = _result(settings, compared, results, advice, cost)
        patient(_recorded)(registry, compared, result)
        result["applied"] = apply and applied(settings, advice)
    return result


def applied(settings: Settings, advice: Recommendation) -> bool:
    """Write recommended settings into the model's file; whether there were any."""
    changes: dict[tuple[str, ...], Any] = {
        ("monitoring", name): value for name, value in advice.settings.items()
    }
    file = Path(settings.conf)
    if changes:
        file.write_text(edited(file, changes), encoding="utf-8")
    return bool(changes)


def compare(settings: Settings, folder: Path) -> Compared:
    """Let the monitor live the past under each of its policies, and fit before each batch.

    Parameters
    ----------
    settings : Settings
        The model's.
    folder : Path
        Where to keep fits and what policies did; all else in it is removed.
    """
    past = patient(_past)(settings, folder)
    fitted = [Fit(batch) for batch in range(past.span.batches)]
    with terminal.progress() as progress:
        total = len(fitted) + len(WATCHED) * past.span.batches
        bar = progress.add_task("comparing policies", total=total)
        say = partial(progress.advance, bar)
        living = [work for name in WATCHED for work in _living(settings, past, name, say)]
        side_by_side([*living, *_fitting(settings, past, fitted)], say)
        stories = {policy: _story(past, policy) for policy in WATCHED}
        champions = {_as_fit(one) for story in stories.values() for one in story["served"]}
        progress.update(bar, description="fitting the champions")
        side_by_side(_fitting(settings, past, sorted(champions - {*fitted})), say)
    fits.drop(past.folder)
    losses = fits.matrix(past.folder, past.span.batches)
    runs = [
        *policies.scheduled(losses),
        *(_watched(past, policy, story) for policy, story in stories.items()),
    ]
    return Compared(runs, losses, past.rows, past.span, stories[policies.CONFIGURED]["broken"])


def _past(settings: Settings, folder: Path) -> Past:
    """Read and validate the rows of the past, and keep them for other processes.

    Raises
    ------
    DataError
        If no live batch is over.
    """
    data, length = settings.data, settings.monitoring.batch
    now = pd.Timestamp.now("UTC").tz_localize(None)
    aside = settings.model_copy(
        update={"tracking": settings.tracking.model_copy(update={"folder": folder})}
    )
    training = check(aside, read_training(settings, None, now, as_of=now), "backtest").valid
    source = live_source(settings)
    live = (
        training
        if source == data.train
        else check(aside, read(settings, source, None, None), "backtest live").valid
    )
    newest = live[data.time].max()
    end = newest + data.arrival.every if data.arrival else newest.normalize() + pd.Timedelta("1D")
    first = training[data.time].min().normalize()
    start = settings.training.until or first + (end - first) // length // 2 * length
    span = Span(start, length, max(int((end - start) // length), 0))
    if not span.batches:
        message = (
            f"The rows must go on for a batch after the first training. Got rows until "
            f"{newest:%Y-%m-%d %H:%M} and a training until {start:%Y-%m-%d %H:%M}. Set "
            "training.until to an earlier moment."
        )
        raise DataError(message)
    own = folder / fits.key_of(settings, [training, live], judging=environment.judging())
    _forget_others(own)
    own.mkdir(parents=True, exist_ok=True)
    fits.keep(own, training, live)
    return Past(own, span, fits.rows_of_batches(live, settings, span))


def _forget_others(own: Path) -> None:
    """Remove what was kept for other rows, settings, code or packages."""
    for other in own.parent.glob("*"):
        if other != own and other.is_dir():
            shutil.rmtree(other)


def _living(settings: Settings, past: Past, policy: str, say: Say) -> list[Work]:
    """The work of living the past under a policy, unless that was done."""
    if _kept(past, policy).exists():
        for _ in range(past.span.batches):
            say()
        return []
    folder = past.folder / policy
    changed = in_own_store(settings, folder, past.span, WATCHED[policy])
    return [Work(partial(_lived_and_kept, changed, past.span, _kept(past, policy)), folder)]


def _lived_and_kept(settings: Settings, span: Span, file: Path, say: Say) -> None:
    """Live the past and keep what happened; the store of it is not needed any more."""
    story = lived(settings, span, say)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(story))
    part.rename(file)


def _kept(past: Past, policy: str) -> Path:
    return past.folder / f"{policy}.json"


def _story(past: Past, policy: str) -> dict[str, Any]:
    """What happened under a policy; its store is removed."""
    shutil.rmtree(past.folder / policy, ignore_errors=True)
    story: dict[str, Any] = json.loads(_kept(past, policy).read_text())
    return story


def _fitting(settings: Settings, past: Past, wanted: list[Fit]) -> list[Work]:
    """The work of some fits, in as many parts as processes run at once."""
    parts = [part for k in range(WORKERS) if (part := wanted[k::WORKERS])]
    return [
        Work(partial(fits.lost, past.folder, settings, past.span, part), past.folder / f"fits {k}")
        for k, part in enumerate(parts)
    ]


def _as_fit(served: list[Any]) -> Fit:
    before, left_out = served
    return Fit(before, tuple(left_out))


def _watched(past: Past, policy: str, story: Mapping[str, Any]) -> Run:
    """The run of a policy of the monitor, with the losses of its champions."""
    served = map(_as_fit, story["served"])
    losses = [fits.read_losses(past.folder, fit)[batch] for batch, fit in enumerate(served)]
    return Run(policy, pd.Series(losses).to_numpy(), tuple(story["retrains"]), story["pages"])


def _result(
    settings: Settings,
    compared: Compared,
    results: list[policies.Outcome],
    advice: Recommendation,
    cost: float,
) -> dict[str, Any]:
    span = compared.span
    return {
        "name": settings.name,
        "conf": settings.conf,
        "loss": settings.loss,
        "since": f"{span.start:%Y-%m-%d}",
        "until": f"{span.begin(span.batches):%Y-%m-%d}",
        "batches": span.batches,
        "labelled": int((compared.rows > 0).sum()),
        "rows": compared.rows.astype(int).tolist(),
        "set_aside": compared.broken,
        "cost": cost,
        "policies": [asdict(one) for one in results],
        "recommended": advice.policy,
        "sentence": advice.sentence,
        "settings": dict(advice.settings),
        "command": _command(settings, compared, advice),
        "applied": False,
    }


def _command(settings: Settings, compared: Compared, advice: Recommendation) -> str:
    """The command that makes a policy of the calendar so; empty for any other."""
    run = next((run for run in compared.runs if run.policy == advice.policy), None)
    if run is None or not run.retrains or run.policy in WATCHED:
        return ""
    seconds = run.retrains[0] * settings.monitoring.batch.total_seconds()
    deployment = f"train/{settings.name}"
    return f"prefect deployment schedule create {deployment} --interval {seconds:.0f}"


def _recorded(registry: Registry, compared: Compared, result: dict[str, Any]) -> None:
    """Keep note, picture and result in a run of the model's experiment."""
    shown = {run.policy: run.losses for run in compared.runs}
    run_id = record_backtest(
        registry,
        result,
        note=backtest_note(result),
        picture=picture(shown, compared.rows, compared.span),
    )
    figures = {one["policy"]: f"{one['loss']:.4g}" for one in result["policies"]}
    name = f"backtest {registry.name}"
    note(registry, run_id, result["sentence"], name=name, figures=figures, page=NOTE)
