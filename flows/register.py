"""The gate before the alias, and the way back."""

from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.steps import check, opened, page_failure, read, without_set_aside
from pipeline import promotion
from pipeline.alerts import Event, page
from pipeline.config import Settings
from pipeline.errors import RegistryError
from pipeline.monitoring.performance import PARTS
from pipeline.promotion import Decision
from pipeline.registry import CHAMPION, Registry, Version
from pipeline.training import losses


@task(cache_policy=NO_CACHE)
def gate(settings: Settings, registry: Registry, number: int) -> Decision:
    """Compare a version with the champion on the same newest rows; promote it if it wins."""
    champion = registry.alias(CHAMPION)
    if champion is not None and champion.number == number:
        message = f"Version {number} must be a challenger to be judged. It is the champion."
        raise RegistryError(message)
    compared = _losses(settings, registry, number, champion)
    decision = promotion.decide(
        compared.drop(columns=settings.data.time),
        times=compared[settings.data.time],
        part=pd.Timedelta(settings.monitoring.batch) / PARTS,
        policy=settings.promotion,
        seed=settings.training.seed,
    )
    registry.record_gate(number, decision)
    if decision.promoted:
        expected = None if champion is None else champion.number
        registry.promote(number, expected=expected, reason=decision.reason)
    else:
        subject = f"Version {number} of {settings.name} was refused"
        page(Event("gate", subject, decision.reason), settings.alerts.urls)
    return decision


def _losses(
    settings: Settings, registry: Registry, number: int, champion: Version | None
) -> pd.DataFrame:
    """Loss of each held-out row, on those that the champion was not fitted on either."""
    data = settings.data
    # Training leaves these rows out as well, but a batch may have been set aside since.
    heldout, _ = without_set_aside(settings, registry, registry.bundle(number).heldout)
    target = heldout[data.target].to_numpy(dtype=np.float64)
    trivial = losses(settings.task, target, heldout["baseline"].to_numpy(dtype=np.float64))
    compared = heldout.rename(columns={"loss": "challenger"}).assign(baseline=trivial)
    if champion is None or compared.empty:
        return compared[[data.time, "challenger", "baseline"]]
    times = compared[data.time]
    newest = times.max() + pd.Timedelta("1us")
    came = read(settings, data.train, times.min(), newest)
    rows, _ = without_set_aside(settings, registry, came)
    valid = check(settings, rows, f"held out for version {number}").valid
    model = registry.bundle(champion.number).model
    predicted = pd.DataFrame({data.key: valid[data.key], "predicted": model.predict(valid)})
    compared = compared[times >= champion.until].merge(predicted, on=data.key)
    truth = compared[data.target].to_numpy(dtype=np.float64)
    champions = losses(settings.task, truth, compared["predicted"].to_numpy())
    return compared.assign(champion=champions)[[data.time, "challenger", "baseline", "champion"]]


@flow(name="register", on_failure=[page_failure])
def register(conf: str, version: int) -> dict[str, Any]:
    """Put an existing version before the gate, and promote it if it passes."""
    settings, registry = opened(conf)
    decision = gate(settings, registry, version)
    return {"version": version, "promoted": decision.promoted, "reason": decision.reason}


@flow(name="rollback", on_failure=[page_failure])
def rollback(conf: str, reason: str = "asked for by hand") -> dict[str, int]:
    """Make the previous champion the champion again."""
    _, registry = opened(conf)
    before, now = registry.rollback(f"Rolled back: {reason}")
    return {"from": before, "to": now}
