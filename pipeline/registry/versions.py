"""Versions: how they are trained and logged, judged, promoted and fetched."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from pipeline.config import Settings
from pipeline.errors import RegistryError
from pipeline.monitoring.episode import Attempt
from pipeline.registry import environment
from pipeline.registry.tracking import Tracking, metric_name, translated
from pipeline.reporting import notes
from pipeline.training.bundle import MANIFEST, Bundle, sha256_of
from pipeline.training.fitting import Trained
from pipeline.training.gate import GateResult
from pipeline.training.metrics import LOSS

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_DATA = Path("data") / "bundle"


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

    @property
    def settled(self) -> bool:
        """Whether it was champion, or is refused; one that passed may wait for people."""
        return self.tags.get("gate") == "refused" or bool(self.tags.get("champion"))


class Registry(Tracking):
    """One model's experiment and its registered versions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._bundles: dict[int, Bundle] = {}

    def versions(self) -> list[Version]:
        """All registered versions, oldest first."""
        with translated():
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
        with translated():
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
        with translated():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)

    def record_gate(self, number: int, decision: GateResult) -> None:
        """Keep the gate's decision with the version, readable in the UI; its tags come last."""
        version = self.version(number)
        gains = {f"gain_over_{gain.over}": gain.mean for gain in decision.gains}
        with translated():
            self.client.update_model_version(self.name, str(number), decision.to_markdown())
            self.client.log_dict(version.run_id, asdict(decision), "gate.json")
            self.log(version.run_id, gains, version.until, 0)
        gate = "passed" if decision.promoted else "refused"
        self.tag(number, {"reason": decision.reason, "gate": gate})

    def model_tags(self) -> dict[str, str]:
        """Tags of the registered model; none before it has a version."""
        with translated():
            found = self.client.search_registered_models(f"name = '{self.name}'")
        return dict(found[0].tags) if found else {}

    def tag_model(self, key: str, value: str) -> None:
        """Set a tag of the registered model."""
        with translated():
            self.client.set_registered_model_tag(self.name, key, value)

    def point(self, alias: str, number: int | None) -> None:
        """Let an alias point to a version, or to none."""
        with translated():
            if number is not None:
                self.client.set_registered_model_alias(self.name, alias, str(number))
            elif self.alias(alias) is not None:
                self.client.delete_registered_model_alias(self.name, alias)

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
            If anything of it is missing, broken or was changed, or it predicts differently here.
        """
        if number not in self._bundles:
            self._bundles[number] = Bundle.load(self.folder_of(number))
        return self._bundles[number]

    def _fetch(self, number: int, kept: Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as partial, translated():
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{self.name}/{number}", dst_path=partial
            )
            whole = shutil.copytree(Path(path) / _DATA, Path(partial) / "whole")
            self._check_files(number, sha256_of(whole))
            manifest = json.loads((whole / MANIFEST).read_text())
            (whole / MANIFEST).write_text(json.dumps({**manifest, "version": number}, indent=1))
            whole.rename(kept)

    def _check_files(self, number: int, got: str) -> None:
        if self.version(number).tags["sha256"] != got:
            message = (
                f"The files of version {number} of {self.name!r} must be those that were "
                f"registered. Got others: SHA-256 {got[:12]}... Look at who changed them, and "
                "train again."
            )
            raise RegistryError(message)

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
        with translated():
            experiment = self.experiment
            kind = {"kind": "training"}
            with mlflow.start_run(experiment_id=experiment, run_name=name, tags=kind) as run:
                self._log_training(run, trained, rows, settings, {**tags, **made_with})
                kept = {**tags, **made_with, "gate": "pending", "sha256": sha256_of(bundle)}
                return self._register(trained, bundle, kept)

    def close_cut_off(self) -> None:
        """End training runs whose process is gone; the caller holds the lock of training."""
        registered = {one.run_id for one in self.versions()}
        for run in self.search("tags.kind = 'training' and attributes.status = 'RUNNING'"):
            run_id = run.info.run_id
            status = "FINISHED" if run_id in registered else "KILLED"
            with translated():
                self.client.set_terminated(run_id, status=status)

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
                "mlflow.note.content": notes.training_note(trained, tags),
            }
        )
        mlflow.log_params({"estimator": training.estimator, **training.params})
        mlflow.log_params(training.model_dump(mode="json", include={"window", "holdout", "seed"}))
        mlflow.log_params({"until": tags["until"], "rows": trained.fitted_rows})
        mlflow.log_metrics({f"heldout_{key}": value for key, value in trained.scores.items()})
        mlflow.log_metrics({f"baseline_{key}": value for key, value in trained.baseline.items()})
        mlflow.log_metrics(
            {metric_name(f"importance/{name}"): v for name, v in trained.importance.items()}
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
        for name, figure in notes.figures(trained, LOSS[settings.task]).items():
            mlflow.log_figure(figure, name)
        mlflow.log_text(settings.model_dump_json(indent=1), "settings.json")
        lock = environment.lock()
        if lock is not None:
            mlflow.log_artifact(str(lock), "environment")

    def _register(self, trained: Trained, bundle: Path, tags: Mapping[str, str]) -> int:
        private = any(column.private for column in trained.model.columns.values())
        rows = trained.heldout[list(trained.model.columns)]
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="pipeline.training.model",
            data_path=str(bundle),
            signature=infer_signature(rows, trained.model.predict(rows)),
            input_example=None if private else rows.head(3),
            pip_requirements=environment.requirements(),
        )
        mlflow.log_artifacts(str(bundle), "reference")
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        made = self.client.create_model_version(
            self.name,
            info.model_uri,
            run_id=info.run_id,
            model_id=info.model_id,
            tags=dict(tags),
        )
        return int(made.version)

    def attempts(self) -> list[Attempt]:
        """Challengers that episodes asked for, and that were promoted or refused, oldest first."""
        return [
            Attempt(one.tags["episode"], bool(one.tags.get("champion")), one.number)
            for one in self.versions()
            if one.tags.get("episode") and one.settled
        ]


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
