"""The only file that speaks to MLflow: versions, aliases, training runs, batch records.

All state of the monitor is read back from here. A batch's run is found by its tag and
continued, and metric time stamps are the end of the batch's window, so that doing anything
twice adds nothing.
"""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
import sqlalchemy as sa
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import infer_signature

from pipeline import environment
from pipeline import report as report_of
from pipeline.bundle import MANIFEST, Bundle
from pipeline.config import Settings
from pipeline.errors import RegistryError, UnavailableError
from pipeline.monitoring.episode import Attempt, Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.monitoring.performance import Performance
from pipeline.promotion import Decision as GateDecision
from pipeline.training import LOSS, Trained
from pipeline.traits import Summary

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
SUMMARY, REPORT = "summary.json", "report.json"
"""Artifacts of a batch run: the batch as one observation, and what the comparison found."""
Answer = Literal["accept", "drop"]
_DATA = Path("data") / "bundle"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes
    ----------
    number : int
        As MLflow counts.
    run_id : str
        Its training run.
    tags : dict of str to str
        Gate, reason, window, environment, and the episode that asked for it.
    """

    number: int
    run_id: str
    tags: dict[str, str]

    @property
    def until(self) -> pd.Timestamp:
        """End of the window it was trained on."""
        return pd.Timestamp(self.tags["until"])

    @property
    def passed(self) -> bool:
        """Whether the gate let it through."""
        return self.tags.get("gate") == "passed"


@dataclass(frozen=True)
class Batch:
    """A recorded batch.

    Attributes
    ----------
    name : str
        Start of its window, ISO.
    verdict : Verdict
        Evidence and decision.
    rows, quarantined : int
        Valid and refused rows.
    drifted : tuple of str
        Columns that drifted, in the words of the report.
    performance : Performance or None
        Realised, once its labels have arrived.
    run_id : str
        Its MLflow run.
    outcome : str
        ``quiet``, ``moved``, ``broken`` or ``mixed``.
    answer : str
        What people said of a broken one, ``accept`` or ``drop``; empty: nothing yet.
    """

    name: str
    verdict: Verdict
    rows: int
    quarantined: int
    drifted: tuple[str, ...]
    performance: Performance | None
    run_id: str
    outcome: str
    answer: str

    @property
    def broken(self) -> bool:
        """Whether a fault was recognised in it."""
        return self.outcome in {"broken", "mixed"}

    @property
    def set_aside(self) -> bool:
        """Whether nothing may be learnt from it or judged by it."""
        return self.broken and self.answer != "accept"


@contextmanager
def _translated() -> Iterator[None]:
    """Turn MLflow's and the database's errors into ours; none of theirs leaves this file."""
    try:
        yield
    except RestException as error:
        message = f"MLflow must accept the call. Got: {_first_line(error)}. Check the registry."
        raise RegistryError(message) from error
    except (MlflowException, sa.exc.SQLAlchemyError, OSError) as error:
        text = _first_line(error)
        away = "Connection" in text or "Max retries" in text or "locked" in text
        if away:
            message = f"MLflow must answer. Got: {text}. Start it, or set MLFLOW_TRACKING_URI."
            raise UnavailableError(message) from error
        message = f"MLflow must have a whole store. Got: {text}. Restore it or remove it."
        raise RegistryError(message) from error


@contextmanager
def _environment_kept(*names: str) -> Iterator[None]:
    """MLflow writes its address to the environment, where the next model would find it."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


class Registry:
    """One model's experiment and registered versions.

    Attributes
    ----------
    name : str
        Of the experiment and the registered model.
    folder : Path
        The one folder of all state on disk.
    uri : str
        MLflow's address.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = settings.name
        self.folder = settings.tracking.folder.resolve()
        local = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        self._bundles: dict[int, Bundle] = {}
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.ERROR)

    @cached_property
    def client(self) -> mlflow.MlflowClient:
        """MLflow's client, its global address set, because sources resolve through it."""
        if self.uri.startswith("sqlite"):
            self.folder.mkdir(parents=True, exist_ok=True)
        with _translated(), _environment_kept("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment, made when it is not there."""
        with _translated():
            found = self.client.get_experiment_by_name(self.name)
            if found is not None:
                return str(found.experiment_id)
            local = self.uri.startswith("sqlite")
            place = (self.folder / "artifacts" / self.name).as_uri() if local else None
            return str(self.client.create_experiment(self.name, artifact_location=place))

    # Versions

    def versions(self) -> list[Version]:
        """All registered versions, oldest first."""
        with _translated():
            found = self.client.search_model_versions(f"name = '{self.name}'", max_results=10_000)
        return sorted((_version(one) for one in found), key=lambda one: one.number)

    def version(self, number: int) -> Version:
        """One version.

        Raises
        ------
        RegistryError
            If there is none of that number.
        """
        for one in self.versions():
            if one.number == number:
                return one
        message = (
            f"Model {self.name!r} must have version {number}. It has not. "
            f"See them in the MLflow UI: make ui."
        )
        raise RegistryError(message)

    def alias(self, alias: str) -> Version | None:
        """The version an alias points to, if any."""
        with _translated():
            try:
                found = self.client.get_model_version_by_alias(self.name, alias)
            except MlflowException as error:
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return None
                raise
        return _version(found)

    def champion(self) -> Version:
        """The version that serves.

        Raises
        ------
        RegistryError
            If there is none, or it has not passed the gate.
        """
        found = self.alias(CHAMPION)
        if found is None:
            message = (
                f"Model {self.name!r} must have a champion. It has none. "
                f"Train one: prefect deployment run train/{self.name}."
            )
            raise RegistryError(message)
        if not found.passed:
            message = (
                f"The champion of {self.name!r} must have passed the gate. Version "
                f"{found.number} has not. Run register/{self.name} or rollback/{self.name}."
            )
            raise RegistryError(message)
        return found

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with _translated():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)

    def record_gate(self, number: int, decision: GateDecision) -> None:
        """Keep the gate's decision with the version, readable in the UI."""
        gate = "passed" if decision.promoted else "refused"
        self.tag(number, {"gate": gate, "reason": decision.reason})
        run_id = self.version(number).run_id
        with _translated():
            self.client.update_model_version(self.name, str(number), decision.to_markdown())
            self.client.log_dict(run_id, asdict(decision), "gate.json")
            for gain in decision.gains:
                self.client.log_metric(run_id, f"gain_over_{gain.over}", gain.mean)

    def promote(self, number: int, *, expected: int | None, reason: str) -> None:
        """Make a version champion, and the champion so far the previous one.

        Parameters
        ----------
        number : int
            The version; it must have passed the gate.
        expected : int or None
            The champion it was compared with.
        reason : str
            One sentence, kept in the history.

        Raises
        ------
        RegistryError
            If it has not passed, or the champion is another than expected.
        """
        if not self.version(number).passed:
            message = (
                f"Version {number} of {self.name!r} must have passed the gate to be promoted. "
                f"It has not. Run register/{self.name} for it."
            )
            raise RegistryError(message)
        champion = self.alias(CHAMPION)
        now = None if champion is None else champion.number
        if now == number:
            return
        if now != expected:
            message = (
                f"The champion of {self.name!r} must still be version {expected}, which version "
                f"{number} was compared with. It is {now}. Run register/{self.name} again."
            )
            raise RegistryError(message)
        self._move(number, now, reason)

    def rollback(self, reason: str) -> tuple[int, int]:
        """Make the previous champion champion again.

        Returns
        -------
        tuple of int
            The version that was champion and the one that is now.

        Raises
        ------
        RegistryError
            If there is nothing to go back to.
        """
        champion, previous = self.champion(), self.alias(PREVIOUS)
        if previous is None or previous.number == champion.number:
            message = (
                f"Model {self.name!r} must have a previous champion to go back to. It has none. "
                f"Name a version: register/{self.name}."
            )
            raise RegistryError(message)
        self._move(previous.number, champion.number, reason)
        return champion.number, previous.number

    def _move(self, number: int, before: int | None, reason: str) -> None:
        with _translated():
            if before is not None:
                self.client.set_registered_model_alias(self.name, PREVIOUS, str(before))
            self.client.set_registered_model_alias(self.name, CHAMPION, str(number))
        self.tag(number, {"promoted": reason})

    def folder_of(self, number: int) -> Path:
        """A version's bundle on local disk, fetched once."""
        kept = self.folder / "cache" / self.name / self.version(number).run_id
        if not kept.exists():
            self._fetch(number, kept)
        return kept

    def bundle(self, number: int) -> Bundle:
        """A version, its golden batch replayed.

        Raises
        ------
        RegistryError
            If anything of it is missing or broken, or it predicts differently here.
        """
        if number not in self._bundles:
            self._bundles[number] = Bundle.load(self.folder_of(number))
        return self._bundles[number]

    def _fetch(self, number: int, kept: Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as partial, _translated():
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{self.name}/{number}", dst_path=partial
            )
            whole = shutil.copytree(Path(path) / _DATA, Path(partial) / "whole")
            manifest = json.loads((whole / MANIFEST).read_text())
            (whole / MANIFEST).write_text(json.dumps({**manifest, "version": number}, indent=1))
            whole.rename(kept)

    # Training runs

    def record_training(
        self,
        trained: Trained,
        bundle: Path,
        *,
        rows: pd.DataFrame,
        settings: Settings,
        tags: Mapping[str, str],
    ) -> int:
        """Log a training run with everything about it and register its model.

        Parameters
        ----------
        trained : Trained
            What training made.
        bundle : Path
            The folder that travels with the version.
        rows : DataFrame
            The labelled rows it was fitted on.
        settings : Settings
            The configuration it was trained with.
        tags : mapping of str to str
            Of the version and the run: window, rows, episode.

        Returns
        -------
        int
            The registered version.
        """
        made_with = environment.describe()
        name = f"train until {tags['until']}"
        with _translated():
            experiment = self.experiment
            with mlflow.start_run(experiment_id=experiment, run_name=name) as run:
                self._log_training(run, trained, rows, settings, {**tags, **made_with})
                number = self._register(trained, bundle)
        self.tag(number, {**tags, **made_with, "gate": "pending"})
        with _translated():
            self.client.set_registered_model_alias(self.name, CHALLENGER, str(number))
        return number

    def _log_training(
        self,
        run: Run,
        trained: Trained,
        rows: pd.DataFrame,
        settings: Settings,
        tags: Mapping[str, str],
    ) -> None:
        training, data = settings.training, settings.data
        mlflow.set_tags(
            {
                **tags,
                "kind": "training",
                "mlflow.note.content": report_of.training_note(trained, tags),
            }
        )
        mlflow.log_params({"estimator": training.estimator, **training.params})
        mlflow.log_params(training.model_dump(include={"window", "holdout", "seed"}))
        mlflow.log_params({"until": tags["until"], "rows": trained.fitted_rows})
        mlflow.log_metrics({f"heldout_{key}": value for key, value in trained.scores.items()})
        mlflow.log_metrics({f"baseline_{key}": value for key, value in trained.baseline.items()})
        mlflow.log_metrics(
            {_key(f"importance/{name}"): v for name, v in trained.importance.items()}
        )
        columns = [*data.features, data.target]
        for context, part in (("training", rows), ("heldout", trained.heldout)):
            dataset = mlflow.data.from_pandas(part[columns], name=context, targets=data.target)  # type: ignore[attr-defined]
            mlflow.log_input(dataset, context=context)
        for side in ("fitted", "heldout"):
            points = zip(trained.curve.steps, getattr(trained.curve, side), strict=True)
            now = run.info.start_time
            metrics = [Metric(f"curve/{side}", loss, now, step) for step, loss in points]
            self.client.log_batch(run.info.run_id, metrics)
        for name, figure in report_of.figures(trained, LOSS[settings.task]).items():
            mlflow.log_figure(figure, name)
        mlflow.log_text(settings.model_dump_json(indent=1), "settings.json")
        lock = environment.lock()
        if lock is not None:
            mlflow.log_artifact(str(lock), "environment")

    def _register(self, trained: Trained, bundle: Path) -> int:
        private = any(column.private for column in trained.model.columns.values())
        rows = trained.heldout[list(trained.model.columns)]
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="pipeline.model",
            data_path=str(bundle),
            signature=infer_signature(rows, trained.model.predict(rows)),
            input_example=None if private else rows.head(3),
            pip_requirements=environment.requirements(),
        )
        mlflow.log_artifacts(str(bundle), "reference")
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        made = self.client.create_model_version(
            self.name, info.model_uri, run_id=info.run_id, model_id=info.model_id
        )
        return int(made.version)

    # Batches

    def batches(self) -> list[Batch]:
        """All recorded batches, oldest first; a doubled one counts once."""
        found = self._search("tags.kind = 'batch'")
        named = {one.name: one for one in (_batch(run) for run in found) if one is not None}
        return [named[name] for name in sorted(named)]

    def _search(self, condition: str) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        with _translated():
            experiment = self.experiment
            while True:
                page = self.client.search_runs(
                    [experiment],
                    condition,
                    max_results=1_000,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
                runs += page
                token = page.token
                if not token:
                    return runs

    def _run(self, tags: Mapping[str, str], name: str, start: pd.Timestamp) -> str:
        """The run that carries these tags, made when it is not there."""
        condition = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        found = self._search(condition)
        if found:
            return str(found[-1].info.run_id)
        with _translated():
            made = self.client.create_run(
                self.experiment,
                start_time=_milliseconds(start),
                tags={**tags, "mlflow.runName": name},
            )
        return str(made.info.run_id)

    def record_batch(
        self,
        *,
        verdict: Verdict,
        report: DriftReport,
        quarantined: int,
        predicted: float,
        window: tuple[pd.Timestamp, pd.Timestamp],
        step: int,
    ) -> None:
        """Log one batch: its own run with the report, and a step of its champion's time line.

        Parameters
        ----------
        verdict : Verdict
            Evidence and decision.
        report : DriftReport
            The comparison.
        quarantined : int
            Refused rows.
        predicted : float
            Mean prediction.
        window : tuple of Timestamp
            Start and end of the batch.
        step : int
            Number of the batch since the first champion.
        """
        evidence = verdict.evidence
        parent = self._timeline(evidence.version, window[0])
        tags = {"kind": "batch", "batch": evidence.batch}
        run_id = self._run(tags, f"batch {evidence.batch}", window[0])
        metrics = report_of.batch_metrics(report, quarantined, predicted)
        drifted = json.dumps(report.drifted[:20])
        facts = {
            "mlflow.parentRunId": parent,
            "mlflow.note.content": report_of.batch_note(
                verdict, report, quarantined, length=window[1] - window[0], model=self.name
            ),
            "version": str(evidence.version),
            "action": verdict.decision.action,
            "episode": verdict.decision.episode,
            "alarm": str(report.alarm).lower(),
            "outcome": report.outcome,
            "drifted": drifted,
        }
        with _translated():
            self.client.log_dict(run_id, report.to_dict(), REPORT)
            self.client.log_dict(run_id, report.summary, SUMMARY)
            self._log(run_id, metrics, window[1], 0)
            self._log(parent, metrics, window[1], step)
            for key, value in facts.items():
                self.client.set_tag(run_id, key, value)
            # The verdict comes last: a batch without one is judged again.
            self.client.set_tag(run_id, "verdict", json.dumps(asdict(verdict)))
            self.client.set_terminated(run_id, end_time=_milliseconds(window[1]))

    def record_performance(
        self, batch: Batch, performance: Performance, *, end: pd.Timestamp, step: int
    ) -> None:
        """Add realised performance to a batch and to its champion's time line."""
        scores = {f"realised_{key}": value for key, value in performance.scores.items()}
        scores |= {"loss_change": performance.change, "loss_change_at_least": performance.at_least}
        parent = self._timeline(batch.verdict.evidence.version, end)
        with _translated():
            self._log(batch.run_id, scores, end, 0)
            self._log(parent, scores, end, step)
            self.client.set_tag(batch.run_id, "performance", json.dumps(asdict(performance)))

    def answer(self, batch: str, answer: Answer, reason: str) -> None:
        """Record what people say of a broken batch; the same answer again changes nothing.

        Parameters
        ----------
        batch : str
            Its name, or any spelling of its start.
        answer : str
            ``accept``: the world is like that now. ``drop``: never learn from these rows.
        reason : str
            Why, in the words of whoever answers; the first 300 characters are kept.

        Raises
        ------
        RegistryError
            If there is no such batch or it is not broken.
        """
        start = pd.to_datetime(batch, errors="coerce")
        name = batch if pd.isna(start) else f"{start:%Y-%m-%dT%H:%M}"
        found = next((one for one in self.batches() if one.name == name), None)
        if found is None or not found.broken:
            got = "It is not recorded" if found is None else f"It is {found.outcome}"
            message = (
                f"Batch {batch} of {self.name!r} must be a broken one to be answered. {got}. "
                f"See the open questions: review/{self.name}."
            )
            raise RegistryError(message)
        if found.answer == answer:
            return
        with _translated():
            tags = self.client.get_run(found.run_id).data.tags
            moment = f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%MZ}"
            now = {"answer_reason": reason[:300], "answered": moment}
            if found.answer:
                earlier = {key: tags[key] for key in ("answer", *now)}
                history = [*json.loads(tags.get("answers", "[]")), earlier]
                self.client.set_tag(found.run_id, "answers", json.dumps(history))
            for key, value in (now | {"answer": answer}).items():
                self.client.set_tag(found.run_id, key, value)

    def causes(self, batch: Batch) -> tuple[Cause, ...]:
        """The faults that were recognised in a batch."""
        with _translated():
            report = mlflow.artifacts.load_dict(f"runs:/{batch.run_id}/{REPORT}")
        return tuple(
            Cause(**{**cause, "columns": tuple(cause["columns"])}) for cause in report["causes"]
        )

    def summaries(self, batches: Sequence[Batch]) -> list[Summary]:
        """What earlier batches looked like as observations, in the order given."""
        with _translated():
            uris = [f"runs:/{one.run_id}/{SUMMARY}" for one in batches]
            return [mlflow.artifacts.load_dict(uri) for uri in uris]

    def attempts(self) -> list[Attempt]:
        """Challengers that episodes asked for and the gate has judged, oldest first."""
        return [
            Attempt(one.tags["episode"], one.passed)
            for one in self.versions()
            if one.tags.get("episode") and one.tags.get("gate") in {"passed", "refused"}
        ]

    def _timeline(self, version: int, start: pd.Timestamp) -> str:
        tags = {"kind": "timeline", "version": str(version)}
        return self._run(tags, f"monitoring of version {version}", start)

    def _log(self, run_id: str, values: Mapping[str, float], at: pd.Timestamp, step: int) -> None:
        metrics = [
            Metric(_key(key), float(value), _milliseconds(at), step)
            for key, value in values.items()
            if np.isfinite(value)
        ]
        for start in range(0, len(metrics), 1_000):
            self.client.log_batch(run_id, metrics[start : start + 1_000])


def champion_folder(settings: Settings) -> Path:
    """The champion's bundle on local disk, for serving.

    Raises
    ------
    RegistryError
        If there is no champion that passed the gate, or it is broken.
    """
    registry = Registry(settings)
    return registry.folder_of(registry.champion().number)


def _version(found: Any) -> Version:
    return Version(int(found.version), str(found.run_id), dict(found.tags))


def _batch(run: Run) -> Batch | None:
    tags = run.data.tags
    if "verdict" not in tags:
        return None
    verdict = json.loads(tags["verdict"])
    values = verdict["evidence"]
    lists = {key: tuple(values.get(key, ())) for key in ("persisted", "broken")}
    evidence = Evidence(**{**values, **lists})
    performance = tags.get("performance")
    return Batch(
        name=tags["batch"],
        verdict=Verdict(evidence, Decision(**verdict["decision"])),
        rows=int(run.data.metrics["rows"]),
        quarantined=int(run.data.metrics["quarantined"]),
        drifted=tuple(json.loads(tags["drifted"])),
        performance=None if performance is None else _performance(json.loads(performance)),
        run_id=run.info.run_id,
        outcome=tags.get("outcome") or ("moved" if evidence.alarm else "quiet"),
        answer=tags.get("answer", ""),
    )


def _performance(values: dict[str, Any]) -> Performance:
    return Performance(**{**values, "parts": tuple(values["parts"])})


def _key(name: str) -> str:
    """A column may be called anything, a metric may not."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _milliseconds(at: pd.Timestamp) -> int:
    return int(at.timestamp() * 1_000)
