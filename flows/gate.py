"""The gate before the champion: a version is judged, and promoted, refused or held for people."""

import logging

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.paging import page_changes, post
from flows.predict import check_classes
from flows.settle import live_source, promises_kept
from flows.steps import check, read, read_training, without_set_aside
from pipeline.config import RESERVED, Settings
from pipeline.data.labels import labelled
from pipeline.errors import RegistryError
from pipeline.monitoring.means import PARTS
from pipeline.monitoring.promises import worth
from pipeline.registry import records
from pipeline.registry.champions import held, promote, whole_before
from pipeline.registry.history import Batch, History
from pipeline.registry.recent import read_last
from pipeline.registry.versions import CHALLENGER, CHAMPION, Registry, Version
from pipeline.reporting.events import poor_version, refused_version, waiting_version
from pipeline.training.gate import GateResult, judge_challenger, prediction_problems
from pipeline.training.metrics import losses
from pipeline.training.model import Model, Predictions
from pipeline.training.predictions import BASELINE, PREDICTION, as_cells, of_cells

_LOG = logging.getLogger(__name__)
APPROVAL, RELEASE = "approval", "release"
"""What a version that passed may wait for."""


@task(cache_policy=NO_CACHE)
def gate(settings: Settings, registry: Registry, number: int, by: str = "") -> GateResult:
    """Compare a version with the champion on the newest rows, and promote it if it passes.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    number : int
        The version.
    by : str
        Who approved it; empty: nobody has yet.

    Raises
    ------
    RegistryError
        If the version is the champion already, or the champion cannot be loaded.
    """
    champion = registry.alias(CHAMPION)
    if champion is not None and champion.number == number:
        message = f"Version {number} is the champion already; only challengers are judged."
        raise RegistryError(message)
    version = registry.version(number)
    registry.point(CHALLENGER, number)
    decision = _judged(settings, registry, version, _rival(registry, champion))
    if decision.promoted:
        if decision.warning:
            event = poor_version(settings.name, registry.conf, number, decision.warning)
            post(settings, event)
        registry.record_gate(number, decision)
        _go_on(settings, registry, version, champion, reason=decision.reason, by=by)
    else:
        # Paged first: a process that ends in between leaves a page that the next run finds.
        serving = None if champion is None else champion.number
        event = refused_version(settings.name, registry.conf, number, decision.reason, serving)
        post(settings, event)
        registry.record_gate(number, decision)
    return decision


def _rival(registry: Registry, champion: Version | None) -> Version | None:
    """The champion to compare with; None: there is none, or its files and those before are gone.

    Raises
    ------
    RegistryError
        If its files are gone or were changed, and people can go back to another champion.
    """
    if champion is None:
        return None
    try:
        registry.folder_of(champion.number)
    except RegistryError as error:
        if whole_before(registry, champion.number) is not None:
            raise
        _LOG.warning("The version is judged as a first one is. %s", error)
        return None
    return champion


def _go_on(
    settings: Settings,
    registry: Registry,
    version: Version,
    champion: Version | None,
    *,
    reason: str,
    by: str,
) -> None:
    """Promote a version that passed, or let it wait for people and page them."""
    number = version.number
    if why := held(registry):
        _hold(settings, registry, number, RELEASE, reason=reason, held=why)
    elif settings.promotion.approval == "manual" and not by:
        _hold(settings, registry, number, APPROVAL, reason=reason)
    else:
        expected = None if champion is None else champion.number
        since = next_start(read_last(registry), version)
        promote(registry, number, expected=expected, since=since, by=by)
        page_changes(settings, registry)


def _hold(
    settings: Settings,
    registry: Registry,
    number: int,
    waits_for: str,
    *,
    reason: str,
    held: str = "",
) -> None:
    post(settings, waiting_version(settings.name, registry.conf, number, reason, held))
    registry.hold(number, waits_for)


def next_start(last: Batch | None, version: Version) -> pd.Timestamp:
    """Start of the first batch that a new champion judges: no batch that is recorded already."""
    return version.until if last is None else max(last.end, version.until)


def shadowed(settings: Settings, history: History, version: Version) -> list[Batch]:
    """Batches that a version in shadow has scored, whose labels are all due."""
    if not version.shadow or history.last is None:
        return []
    return history.scored_between(version.until, history.last.end - settings.data.label_delay)


def _judged(
    settings: Settings, registry: Registry, version: Version, champion: Version | None
) -> GateResult:
    """The gate's decision; a version that does not load as it was logged is refused."""
    policy, data = settings.promotion, settings.data
    history = records.read_history(registry)
    try:
        compared = _losses(settings, registry, history, version, champion)
    except RegistryError as error:
        if champion is not None:
            registry.bundle(champion.number)  # if this fails, the challenger is not to blame
        return GateResult(promoted=False, reason=str(error), rows=0)
    predicted = of_cells(registry.bundle(version.number).heldout[PREDICTION])
    names = [name for name in ("challenger", "baseline", "champion") if _own(name) in compared]
    return judge_challenger(
        compared[[_own(name) for name in names]].set_axis(names, axis=1),
        times=compared[data.time],
        part=settings.monitoring.batch / PARTS,
        policy=policy,
        seed=settings.training.seed,
        slices=compared[[name for name in policy.slices if name in compared]],
        problems=prediction_problems(predicted, chances=settings.task == "classification"),
        worth=worth(promises_kept(registry.versions(), history, settings.loss)),
    )


def _losses(
    settings: Settings,
    registry: Registry,
    history: History,
    version: Version,
    champion: Version | None,
) -> pd.DataFrame:
    """Loss of each row that neither a version nor the champion was fitted on.

    These are the newest rows that training held out, and rows of the batches since then that a
    version in shadow has scored.
    """
    data, bundle = settings.data, registry.bundle(version.number)
    check_classes(settings, version.number, bundle.model)
    # Training leaves rows out as well, but a batch may have been set aside since.
    heldout, _ = without_set_aside(bundle.heldout, history, data.time)
    judged = _scored(settings, heldout, of_cells(heldout[PREDICTION]))
    if champion is None or judged.empty:
        return judged
    rival = registry.bundle(champion.number).model
    check_classes(settings, champion.number, rival)
    unfitted = judged[judged[data.time] >= champion.until]
    parts = [_held_out(settings, history, version, unfitted, times=heldout[data.time], rival=rival)]
    baseline = of_cells(heldout[BASELINE])[-1:]
    for batch in shadowed(settings, history, version):
        rows = _of_batch(settings, history, version, batch)
        rows = rows.assign(**{BASELINE: as_cells(np.repeat(baseline, len(rows), axis=0))})
        scored = _scored(settings, rows, bundle.model.predict(rows))
        parts.append(_beside(settings, scored, rows, rival))
    compared = pd.concat(parts, ignore_index=True)
    truth = compared[data.target].to_numpy(dtype=np.float64)
    lost = losses(settings.loss, truth, of_cells(compared[_own("rival")]))
    return compared.assign(**{_own("champion"): lost})


def _own(name: str) -> str:
    """Name of a column that the gate adds to the user's columns."""
    return f"{RESERVED}{name}"


def _held_out(
    settings: Settings,
    history: History,
    version: Version,
    judged: pd.DataFrame,
    *,
    times: pd.Series,
    rival: Model,
) -> pd.DataFrame:
    """Losses on held-out rows, with what another model answers for these rows."""
    data = settings.data
    arrived = read_training(
        settings,
        times.min(),
        times.max() + pd.Timedelta("1us"),
        as_of=next_start(history.last, version),
    )
    rows = _valid(settings, history, arrived, version)
    answers = rows[[*data.identity, *settings.promotion.slices]]
    return judged.merge(
        answers.assign(**{_own("rival"): as_cells(rival.predict(rows))}), on=data.identity
    )


def _of_batch(settings: Settings, history: History, version: Version, batch: Batch) -> pd.DataFrame:
    """Rows of a batch whose labels had arrived before the next batch starts."""
    source, as_of = live_source(settings), next_start(history.last, version)
    arrived = read(settings, source, batch.start, batch.end, as_of=as_of)
    return labelled(_valid(settings, history, arrived, version), settings.data, as_of=as_of)


def _beside(
    settings: Settings, scored: pd.DataFrame, rows: pd.DataFrame, rival: Model
) -> pd.DataFrame:
    """Losses of rows, with the columns to slice by and what another model answers for them."""
    kinds = {name: rows[name] for name in settings.promotion.slices}
    return scored.assign(**{_own("rival"): as_cells(rival.predict(rows))}, **kinds)


def _scored(settings: Settings, rows: pd.DataFrame, predicted: Predictions) -> pd.DataFrame:
    """Rows with the loss of predictions and the loss of the trivial baseline."""
    data = settings.data
    truth = rows[data.target].to_numpy(dtype=np.float64)
    trivial = of_cells(rows[BASELINE])
    return rows[[data.key, data.time, data.target]].assign(
        **{
            _own("challenger"): losses(settings.loss, truth, predicted),
            BASELINE: losses(settings.loss, truth, trivial),
        }
    )


def _valid(
    settings: Settings, history: History, arrived: pd.DataFrame, version: Version
) -> pd.DataFrame:
    """Valid rows, without rows of batches that are set aside."""
    rows, _ = without_set_aside(arrived, history, settings.data.time)
    return check(settings, rows, f"held out for version {version.number}").valid
