"""Registered versions: what is known of each, who is champion, and the bundles they carry."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from pipeline import config
from pipeline.errors import RegistryError, writing
from pipeline.registry import environment, locks
from pipeline.registry.cards import GATE, draw_card
from pipeline.registry.tracking import Tracking, translated
from pipeline.registry.version_tags import lost
from pipeline.reporting import notes
from pipeline.training.bundle import MANIFEST, Bundle, sha256_of
from pipeline.training.gate import GateResult
from pipeline.training.seals import is_sealed, seal

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
SUBSTITUTE = "substitute"
"""Tag of a version that stands for a deleted one."""
_MONITORED = "monitored"
"""Tag of the registered model: when the monitor last ran to its end."""
DATA = Path("data") / "bundle"
"""Folder of the bundle among the files of a version."""
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


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
        Everything known of it, as MLflow stores it; the properties read it.
    """

    number: int
    run_id: str
    tags: dict[str, str] = field(repr=False)

    @property
    def missing(self) -> list[str]:
        """Tags that it should have and has not, or that cannot be read; it is passed over then."""
        return lost(self.tags)

    @property
    def is_substitute(self) -> bool:
        """Whether it only stands for a deleted version, so that no number is given twice."""
        return SUBSTITUTE in self.tags

    @property
    def until(self) -> pd.Timestamp:
        """End of the window that it was trained on."""
        return pd.Timestamp(self.tags["until"])

    @property
    def passed(self) -> bool:
        """Whether it passed the gate."""
        return self.tags.get("gate") == "passed"

    @property
    def reason(self) -> str:
        """Why the gate or a person decided as they did; empty before that."""
        return self.tags.get("reason", "")

    @property
    def episode(self) -> str:
        """The episode of drift that asked for it; empty: none did."""
        return self.tags.get("episode", "")

    @property
    def recipe(self) -> str:
        """Hash of the settings that it was trained with."""
        return self.tags.get("recipe", "")

    @property
    def shadow(self) -> int:
        """Live batches that it scores beside the champion before it is judged."""
        return int(self.tags.get("shadow") or 0)

    @property
    def waits_for(self) -> str:
        """``approval`` or ``release``, where people have to act before it goes on; else empty."""
        return self.tags.get("waits", "")

    @property
    def place(self) -> int:
        """Place of its last promotion among all changes of champion, from 1; 0: never champion."""
        return int(self.tags.get("champion") or 0)

    @property
    def promoted(self) -> bool:
        """Whether it is or has been champion."""
        return self.place > 0

    @property
    def closed(self) -> bool:
        """Whether it has been champion or was refused, so that nothing is left to decide."""
        return self.promoted or self.tags.get("gate") == "refused"

    @property
    def awaits_gate(self) -> bool:
        """Whether the gate has to judge it now: it waits for neither people nor batches."""
        return not (self.closed or self.waits_for or self.shadow)

    @property
    def promised(self) -> float | None:
        """Relative gain over the champion that it showed at the gate; None: there was none."""
        gain = self.tags.get("promised_gain")
        return None if gain is None else float(gain)

    @property
    def left_out(self) -> str:
        """Batches whose rows were set aside and not trained on, separated by commas."""
        return self.tags.get("left_out", "")

    @property
    def rows(self) -> int:
        """Rows that it was fitted on."""
        return int(self.tags["rows"])


class Registry(Tracking):
    """One model's experiment and its registered versions."""

    def __init__(self, name: str, section: config.Tracking, conf: str = "") -> None:
        super().__init__(name, section, conf)
        self._bundles: dict[int, Bundle] = {}

    def versions(self) -> list[Version]:
        """All registered versions that training made, oldest first."""
        return [version for version in self.all_versions() if not version.missing]

    def all_versions(self) -> list[Version]:
        """All registered versions, oldest first, with those that somebody else registered."""
        with translated():
            found = self.client.search_model_versions(f"name = '{self.name}'", max_results=10_000)
        return sorted(map(_version, found), key=lambda version: version.number)

    def version(self, number: int) -> Version:
        """The version of a number.

        Raises
        ------
        RegistryError
            If there is none, or training did not make it.
        """
        with translated():
            try:
                found = _version(self.client.get_model_version(self.name, str(number)))
            except MlflowException as error:
                if error.error_code not in _ABSENT:
                    raise
                known = ", ".join(str(version.number) for version in self.versions()) or "none"
                message = (
                    f"Version {number} of model {self.name!r} does not exist. There are: {known}. "
                    f"If one is missing, look at `holdfast doctor {self.conf}`."
                )
                raise RegistryError(message) from error
        if found.missing:
            message = (
                f"Version {number} of model {self.name!r} must be one that `holdfast train` "
                f"registered. Its tags {', '.join(found.missing)} are missing or cannot be read. "
                f"Name another version, or train one: `holdfast train {self.conf}`."
            )
            raise RegistryError(message)
        return found

    def alias(self, alias: str) -> Version | None:
        """The version that an alias points to, if any."""
        with translated():
            try:
                return _version(self.client.get_model_version_by_alias(self.name, alias))
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def champion(self) -> Version:
        """The version that serves.

        Raises
        ------
        RegistryError
            If there is none, or it has not passed the gate.
        """
        found = self.alias(CHAMPION)
        if found is None or found.missing:
            raise RegistryError(self._no_champion())
        if not found.passed:
            message = (
                f"The champion of {self.name!r}, version {found.number}, has not passed the gate. "
                f"Go back to the champion before: `holdfast rollback {self.conf}`."
            )
            raise RegistryError(message)
        return found

    def _no_champion(self) -> str:
        """Why there is no champion, and what to do."""
        versions = self.versions()
        former = max(versions, key=lambda version: version.place, default=None)
        if former is None or not former.promoted:
            refused = [version for version in versions if version.closed and version.reason]
            if refused:
                newest = max(refused, key=lambda version: version.number)
                return (
                    f"Model {self.name!r} has no champion yet. Version {newest.number} was "
                    f"refused: {newest.reason.rstrip('.')}. Mend that, and train again: "
                    f"`holdfast train {self.conf}`."
                )
            return (
                f"Model {self.name!r} has no champion yet in {self.uri}. If one served before, "
                "this is another registry: look at MLFLOW_TRACKING_URI and tracking in the file. "
                f"If not, train a version: `holdfast train {self.conf}`."
            )
        return (
            f"Model {self.name!r} has lost its champion: the version, its alias or its tags were "
            "deleted or written over in MLflow. The newest champion that is left is version "
            f"{former.number}. Go back to it: `holdfast rollback {self.conf}`; or train another: "
            f"`holdfast train {self.conf}`."
        )

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version, in the order given."""
        with translated():
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)

    def record_gate(self, number: int, decision: GateResult) -> None:
        """Store the gate's decision with a version, readable in MLflow; its tags come last."""
        version = self.version(number)
        gains = {f"gain_over_{gain.over}": gain.mean for gain in decision.gains}
        with translated():
            self.client.update_model_version(self.name, str(number), notes.gate_note(decision))
            self.client.log_dict(version.run_id, asdict(decision), GATE)
            self.log(version.run_id, gains, version.until, 0)
        draw_card(self, number, version.run_id, version.tags)
        # A version that was champion stays one that can be gone back to.
        gate = "passed" if decision.promoted or version.promoted else "refused"
        promised = [gain.mean for gain in decision.gains if gain.over == CHAMPION]
        tags = {}
        if promised and decision.expected is not None:
            expected = f"{decision.expected:.4f}"
            tags = {"promised_gain": f"{promised[0]:.4f}", "expected_gain": expected}
        self.tag(number, {"reason": decision.reason, **tags, "gate": gate})

    def hold(self, number: int, waits_for: str) -> None:
        """Let a version that passed wait for people: for their ``approval`` or ``release``."""
        self.tag(number, {"waits": waits_for})

    def refuse(self, number: int, reason: str) -> None:
        """Refuse a version that passed the gate, because a person says so."""
        self.tag(number, {"reason": reason, "waits": "", "gate": "refused"})

    def model_tags(self) -> dict[str, str]:
        """Tags of the registered model; none before it has a version."""
        with translated():
            found = self.client.search_registered_models(f"name = '{self.name}'")
        return dict(found[0].tags) if found else {}

    @property
    def monitored(self) -> float | None:
        """When the monitor last ran to its end, in seconds since 1970; None: it never did."""
        found = self.model_tags().get(_MONITORED)
        return None if found is None else pd.Timestamp(found).timestamp()

    def note_monitored(self) -> None:
        """Note that the monitor has run to its end now."""
        self.tag_model(_MONITORED, f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%M:%SZ}")

    def tag_model(self, key: str, value: str) -> None:
        """Set a tag of the registered model."""
        with translated():
            self.client.set_registered_model_tag(self.name, key, value)

    def describe(self, text: str) -> None:
        """Set the description of the registered model, in Markdown."""
        with translated():
            self.client.update_registered_model(self.name, text)

    def point(self, alias: str, number: int | None) -> None:
        """Let an alias point to a version; with None it is removed."""
        with translated():
            if number is not None:
                self.client.set_registered_model_alias(self.name, alias, str(number))
            elif self.alias(alias) is not None:
                self.client.delete_registered_model_alias(self.name, alias)

    def folder_of(self, number: int) -> Path:
        """Folder of a version's bundle on local disk, downloaded once, and again if it is damaged.

        Raises
        ------
        RegistryError
            If MLflow does not have the files that were registered.
        """
        version = self.version(number)
        cached = self._cached(version)
        with locks.exclusive(f"{self.name}-cache", folder=self.folder / "locks", database=None):
            if cached.exists() and not _is_current(cached, version):
                with writing(cached.parent):
                    cached.unlink() if cached.is_file() else shutil.rmtree(cached)
            if not cached.exists():
                self._download(version, cached)
        return cached

    def sound_blocks(self, number: int, of: str) -> Path:
        """File beside the copy of a version that keeps what its own blocks show to this code."""
        return self._cached(self.version(number)) / f"{of} {environment.judging()[:16]}.json"

    def _cached(self, version: Version) -> Path:
        return self.folder / "cache" / self.name / version.run_id

    def bundle(self, number: int) -> Bundle:
        """The bundle of a version, its golden batch replayed.

        Raises
        ------
        RegistryError
            If a part is missing, broken or was changed, or the model predicts differently here.
        """
        if number not in self._bundles:
            self._bundles[number] = Bundle.load(self.folder_of(number))
        return self._bundles[number]

    def check_files(self, number: int) -> None:
        """Compare the files that MLflow keeps of a version with those that were registered.

        Raises
        ------
        RegistryError
            If they are gone or were changed.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._download(self.version(number), Path(folder) / "bundle")

    def _download(self, version: Version, folder: Path) -> None:
        with writing(folder.parent), tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            path = self.fetch(version, Path(partial))
            whole = shutil.copytree(path / DATA, Path(partial) / "whole")
            manifest = json.loads((whole / MANIFEST).read_text()) | {"name": self.name}
            manifest |= {"version": version.number, "sha256": version.tags["sha256"]}
            (whole / MANIFEST).write_text(json.dumps(manifest, indent=1))
            seal(whole)
            whole.rename(folder)

    def fetch(self, version: Version, folder: Path) -> Path:
        """Download the files of a version below a folder, and check them; `DATA` is in them."""
        with translated():
            uri = f"models:/{self.name}/{version.number}"
            path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
        self._check_files(version, Path(path) / DATA)
        return Path(path)

    def _files_gone(self, version: Version) -> str:
        return (
            f"The files of version {version.number} of {self.name!r} are gone from MLflow's "
            f"artifacts. Restore them; or go back to the champion before, if there is one: "
            f"`holdfast rollback {self.conf}`; or train another: `holdfast train {self.conf}`."
        )

    def _check_files(self, version: Version, bundle: Path) -> None:
        if not bundle.is_dir():
            raise RegistryError(self._files_gone(version))
        got = sha256_of(bundle)
        if version.tags["sha256"] != got:
            message = (
                f"The files of version {version.number} of {self.name!r} were changed after they "
                f"were registered (their SHA-256 begins with {got[:12]}). Find out who changed "
                f"them; go back to the champion before, if there is one: `holdfast rollback "
                f"{self.conf}`; or train another: `holdfast train {self.conf}`."
            )
            raise RegistryError(message)


def _is_current(cached: Path, version: Version) -> bool:
    """Whether a downloaded folder is whole, and holds what is registered of the version now."""
    if not is_sealed(cached):
        return False
    known = json.loads((cached / MANIFEST).read_text()).get("sha256")
    return known == version.tags["sha256"] or (known is None and "forgotten" not in version.tags)


def _version(found: Any) -> Version:
    return Version(int(found.version), str(found.run_id), dict(found.tags))
