"""Search better parameters of the estimator, on rows before those that judge a version."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from prefect import flow, get_run_logger

from flows.fit import labelled_rows
from flows.notes import OF_A_MODEL, note
from flows.steps import opened, patient
from flows.tables import figure
from flows.train import until_of
from pipeline.backtest.fits import key_of
from pipeline.config import Settings, edited
from pipeline.errors import ConfigError
from pipeline.registry import environment
from pipeline.registry.studies import close_study, open_study, record_trial
from pipeline.registry.versions import Registry
from pipeline.training import tuning
from pipeline.training.spaces import Space
from pipeline.training.tuning import Stretch, Trial


class Study(NamedTuple):
    """A search that is going on.

    Attributes
    ----------
    run_id, key : str
        Its run in MLflow, and what identifies it.
    newest : Stretch
        Rows that the choice must hold on.
    parts : list of Stretch
        Older rows that the choice is made on.
    space : Space
        What parameters are chosen from.
    trials : list of Trial
        Finished trials; the first one is of the parameters of the file.
    """

    run_id: str
    key: str
    newest: Stretch
    parts: list[Stretch]
    space: Space
    trials: list[Trial]


@flow(name="tune", **OF_A_MODEL)
def tune(
    conf: str, trials: int = 30, minutes: float = 30.0, *, apply: bool = False
) -> dict[str, Any]:
    """Try parameters of the estimator, and write the best into the file where asked.

    The trial that runs when the minutes are over is finished. No version is trained or promoted.
    A search of the same rows and settings is continued, up to as many trials in all.
    """
    if trials < 1 or minutes <= 0:
        message = f"A search must have a trial and time. Got {trials} trials, {minutes} minutes."
        raise ConfigError(message)
    end = time.monotonic() + 60 * minutes
    settings, registry = opened(conf)
    with registry.exclusive("tune"):
        study = patient(_study)(settings, registry)
        while not study.trials or (len(study.trials) < trials and time.monotonic() < end):
            trial = patient(_tried)(settings, registry, study)
            study.trials.append(trial)
            get_run_logger().info("Trial %d: loss %.5g.", len(study.trials) - 1, trial.loss)
        result = _result(settings, study)
        patient(_closed)(registry, study, result)
    if apply and result["params"]:
        file = Path(settings.conf)
        changes: dict[tuple[str, ...], Any] = {
            ("training", "params", name): value for name, value in result["params"].items()
        }
        file.write_text(edited(file, changes), encoding="utf-8")
        result["applied"] = True
    return result


def _study(settings: Settings, registry: Registry) -> Study:
    """Read the rows, and the finished trials of a search on them."""
    space = tuning.space_of_training(settings.training)
    until = until_of(settings, registry)
    _, rows, _ = labelled_rows(settings, registry, until)
    newest, *parts = tuning.stretches(rows, settings.data, settings.training)
    key = key_of(settings, [rows], judging=environment.judging())
    run_id, trials = open_study(registry, key)
    return Study(run_id, key, newest, parts, space, trials)


def _tried(settings: Settings, registry: Registry, study: Study) -> Trial:
    """Make the next trial and keep it."""
    training, began = settings.training, pd.Timestamp.now("UTC").tz_localize(None)
    gained = tuning.bounds(study.trials) if study.trials else []
    params = tuning.proposed(study.space, gained, seed=training.seed)
    trial = tuning.attempt(params, study.parts, settings.data, training, settings.task)
    record_trial(
        registry,
        study.run_id,
        study.key,
        trial,
        number=len(study.trials),
        params={"estimator": training.estimator, **training.params, **trial.params},
        began=began,
    )
    return trial


def _result(settings: Settings, study: Study) -> dict[str, Any]:
    """Choose a trial, and see whether it is better on the newest stretch as well."""
    trials, training = study.trials, settings.training
    place = tuning.chosen(trials)
    count = f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"
    kept = f"The parameters of {settings.conf} stay"
    sentence = f"{kept}: none of {count} is better on each of {len(study.parts)} stretches."
    gain, best = None, 0
    if place:
        own, new = (
            tuning.attempt(params, [study.newest], settings.data, training, settings.task).loss
            for params in ({}, trials[place].params)
        )
        gain = 1 - new / own if own else 0.0
        words = f"{figure(new)} instead of {figure(own)} ({gain:.1%} less)"
        sentence = (
            f"{kept}: trial {place} of {count} is the best on older stretches, but not better on "
            f"the newest one: loss {words}."
        )
        if gain > 0:
            best = place
            sentence = (
                f"Trial {place} of {count} is better on each stretch, and on the newest one, which "
                f"it was not chosen on: loss {words}."
            )
    return {
        "name": settings.name,
        "conf": settings.conf,
        "estimator": settings.training.estimator,
        "loss": settings.loss,
        "trials": [
            {"trial": number, "loss": trial.loss, "params": trial.params}
            for number, trial in enumerate(trials)
        ],
        "own": settings.training.params,
        "chosen": place,
        "gain": gain,
        "best": best,
        "params": trials[best].params,
        "sentence": sentence,
        "applied": False,
    }


def _closed(registry: Registry, study: Study, result: dict[str, Any]) -> None:
    losses = [trial.loss for trial in study.trials]
    close_study(registry, study.run_id, result["sentence"], losses)
    figures = {"trials": len(losses), "best trial": result["best"], **result["params"]}
    name = f"tune {registry.name}"
    note(registry, study.run_id, result["sentence"], name=name, figures=figures, page="")
