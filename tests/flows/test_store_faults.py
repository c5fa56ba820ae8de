"""A store that somebody deleted from, cut or moved: one sentence, nothing promoted, and a cure.

Each fault is done to a copy of a real store, by hand or with MLflow's own client.
"""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from flows.doctor import doctor
from flows.monitor import monitor
from flows.register import rollback
from flows.review import review
from flows.steps import opened
from flows.train import train
from pipeline.errors import PipelineError, RegistryError
from pipeline.registry import champions, records

pytestmark = [pytest.mark.integration, pytest.mark.team]


def version_deleted(number):
    def fault(registry):
        registry.client.delete_model_version("shop", str(number))

    return fault


def aliases_deleted(registry):
    for alias in ("champion", "previous"):
        registry.client.delete_registered_model_alias("shop", alias)


def model_deleted(registry):
    registry.client.delete_registered_model("shop")


def experiment_deleted(registry):
    registry.client.delete_experiment(registry.experiment)


def version_tag_deleted(number, tag):
    def fault(registry):
        registry.client.delete_model_version_tag("shop", str(number), tag)

    return fault


def files_deleted(registry):
    shutil.rmtree(files_of(registry, 2))
    shutil.rmtree(registry.folder / "cache")


def file_cut(registry):
    cut(files_of(registry, 2) / "data" / "bundle" / "heldout.parquet")
    shutil.rmtree(registry.folder / "cache")


def cache_deleted(registry):
    shutil.rmtree(registry.folder / "cache")


def cached_file_cut(registry):
    cut(registry.folder_of(2) / "reference.json")


def cached_file_deleted(registry):
    (registry.folder_of(2) / "heldout.parquet").unlink()


def batch_deleted(place):
    def fault(registry):
        registry.client.delete_run(batch(registry, place).run_id)

    return fault


def artifact_deleted(name):
    def fault(registry):
        artifact(registry, name).unlink()

    return fault


def artifact_cut(name):
    def fault(registry):
        cut(artifact(registry, name))

    return fault


def batch_tag(name, value):
    def fault(registry):
        registry.client.set_tag(batch(registry, -2).run_id, name, value)

    return fault


def change_written_over(registry):
    registry.tag_model("mlflow.holdfast.change.00001", "{oops")


def time_lines_deleted(registry):
    for run in registry.search("tags.kind = 'timeline'"):
        registry.client.delete_run(run.info.run_id)


def training_runs_deleted(registry):
    for version in registry.versions():
        registry.client.delete_run(version.run_id)


def locks_deleted(registry):
    shutil.rmtree(registry.folder / "locks")


def store_cut(registry):
    cut(registry.folder / "mlflow.db")


FAULTS = {
    # name: (fault, what monitor says, what doctor says); empty: it goes on, or finds nothing
    "champion deleted": (version_deleted(2), "has lost its champion", "is version 1"),
    "aliases deleted": (aliases_deleted, "has lost its champion", "is version 2"),
    "tag of champion deleted": (
        version_tag_deleted(2, "sha256"),
        "has lost its champion",
        "sha256",
    ),
    "gate of champion deleted": (version_tag_deleted(2, "gate"), "not passed", "not passed"),
    "former champion deleted": (version_deleted(1), "", "Version 1, which was champion"),
    "tag of version deleted": (version_tag_deleted(1, "until"), "", "lost its tags until"),
    "model deleted": (model_deleted, "has no champion yet", "has no champion yet"),
    "experiment deleted": (experiment_deleted, "was deleted in MLflow", "was deleted in MLflow"),
    "files deleted": (files_deleted, "are gone from MLflow's artifacts", "version 2 of 'shop' are"),
    "file cut": (file_cut, "were changed after they were registered", "SHA-256 begins with"),
    "cache deleted": (cache_deleted, "", ""),
    "cached file cut": (cached_file_cut, "", ""),
    "cached file deleted": (cached_file_deleted, "", ""),
    "newest batch deleted": (batch_deleted(-1), "", ""),
    "older batch deleted": (batch_deleted(-3), "", "has no record"),
    "summary deleted": (artifact_deleted("summary.json"), "", "summary.json"),
    "summary cut": (artifact_cut("summary.json"), "", "summary.json"),
    "sketch deleted": (artifact_deleted("sketch.parquet"), "", ""),
    "sketch cut": (artifact_cut("sketch.parquet"), "", ""),
    "report deleted": (artifact_deleted("report.json"), "", "report.json"),
    "report cut": (artifact_cut("report.json"), "", "report.json"),
    "predictions deleted": (artifact_deleted("predictions.parquet"), "", "predictions.parquet"),
    "predictions cut": (artifact_cut("predictions.parquet"), "", "predictions.parquet"),
    "given deleted": (artifact_deleted("given.json"), "", ""),
    "verdict written over": (batch_tag("verdict", "{oops"), "", "The record of batch"),
    "performance written over": (batch_tag("performance", "[]"), "", ""),
    "change written over": (change_written_over, "", "Tag mlflow.holdfast.change.00001"),
    "time lines deleted": (time_lines_deleted, "", ""),
    "training runs deleted": (training_runs_deleted, "", ""),
    "locks deleted": (locks_deleted, "", ""),
    "store cut": (store_cut, "MLflow's store is damaged", "MLflow's store is damaged"),
}


THINGS = {
    "batch artifact": (
        *("findings.parquet", "given.json", "predictions.parquet", "report.html", "report.json"),
        *("sketch.parquet", "summary.json"),
    ),
    "batch tag": (
        *("action", "alarm", "batch", "drifted", "episode", "estimates", "kind", "outcome"),
        *("paged", "performance", "prefect", "slices", "state", "verdict", "version"),
    ),
    "timeline tag": ("kind", "version"),
    "training artifact": (
        *("card.html", "environment", "gate.json", "reference", "settings.json", "training.json"),
    ),
    "training tag": (
        *("episode", "git_commit", "kind", "lock_sha256", "packages", "prefect", "recipe", "rows"),
        *("since", "until"),
    ),
    "version file": (
        *("MLmodel", "conda.yaml", "data", "input_example.json", "pyproject.toml"),
        *("python_env.yaml", "requirements.txt", "serving_input_example.json", "uv.lock"),
    ),
    "version tag": (
        *("champion", "episode", "expected_gain", "gate", "git_commit", "lock_sha256", "packages"),
        *(
            "promised_gain",
            "realised_gain",
            "reason",
            "recipe",
            "rows",
            "sha256",
            "since",
            "until",
            "waits",
        ),
    ),
    "model tag": ("change", "monitored"),
    "alias": ("challenger", "champion", "previous"),
    "state": ("artifacts", "cache", "locks", "mlflow.db", "pages.db"),
}
"""All that runs write, by where it is. Each of it is deleted, and cut or written over."""


SAMPLE = {
    *("champion deleted", "gate of champion deleted", "files deleted", "file cut", "locks deleted"),
    *("older batch deleted", "summary cut", "verdict written over", "change written over"),
    "store cut",
}
"""Faults that are tried with every change; at night all are."""
TRIED = {("batch tag", "version"), ("training artifact", "gate.json"), ("version tag", "until")}
"""Things that are harmed with every change; at night all are."""


def cut(path):
    """Cut a file, or all files of a folder, in half."""
    for file in [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def written(registry):
    """All that the runs of a store have written, as `THINGS` lists it."""
    found = {place: set() for place in THINGS}
    for run in registry.search("tags.kind != ''"):
        kind = run.data.tags["kind"]
        found.setdefault(f"{kind} tag", set()).update(run.data.tags)
        for file in registry.client.list_artifacts(run.info.run_id):
            found.setdefault(f"{kind} artifact", set()).add(file.path)
    for version in registry.versions():
        files = files_of(registry, version.number)
        found["version file"] |= {path.name for path in files.iterdir()}
        found["version tag"] |= set(version.tags)
    changes = "mlflow.holdfast.change."
    found["model tag"] = {
        "change" if key.startswith(changes) else key.removeprefix("mlflow.holdfast.")
        for key in registry.model_tags()
    }
    found["alias"] |= set(registry.client.get_registered_model("shop").aliases)
    found["state"] = {path.name for path in registry.folder.iterdir()} - {"mlflow.db-journal"}
    return {
        (place, name)
        for place, names in found.items()
        for name in names
        if not (place.endswith("tag") and name.startswith("mlflow."))  # MLflow's own
    }


def harm(registry, place, name, *, deleted):
    """Delete what runs have written, or cut it, or write over it."""
    if place == "alias":
        registry.point(name, None if deleted else 1)
    elif place.endswith("tag"):
        for write, delete in tagged(registry, place, name):
            write("{oops")
            if deleted:
                delete()
    else:
        for path in files_named(registry, place, name):
            (remove if deleted else cut)(path)


def tagged(registry, place, name):
    """What writes a tag of one of the `THINGS`, and what deletes it."""
    client = registry.client
    if place == "version tag":
        calls, keys = "model_version_tag", [("shop", "2", name)]
    elif place == "model tag":
        key = max((key for key in registry.model_tags() if name in key), default=name)
        calls, keys = "registered_model_tag", [("shop", key)]
    else:
        runs = newest(registry, place.removesuffix(" tag"))
        calls, keys = "tag", [(run.info.run_id, name) for run in runs]
    for key in keys:
        yield (
            partial(getattr(client, f"set_{calls}"), *key),
            partial(getattr(client, f"delete_{calls}"), *key),
        )


def newest(registry, kind):
    """The newest two runs of a kind."""
    return registry.search(f"tags.kind = '{kind}'")[:2]


def files_named(registry, place, name):
    """Files or folders of one of the `THINGS`."""
    if place == "state":
        return [registry.folder / name]
    if place == "version file":
        shutil.rmtree(registry.folder / "cache")  # or it would not be read
        return [files_of(registry, 2) / name]
    runs = [run.info.run_id for run in newest(registry, place.split()[0])]
    folder = registry.folder / "artifacts" / "shop"
    return [folder / run_id / "artifacts" / name for run_id in runs]


def batch(registry, place):
    return records.read_history(registry).batches[place]


def artifact(registry, name):
    run_id = batch(registry, -1).run_id
    return registry.folder / "artifacts" / "shop" / run_id / "artifacts" / name


def files_of(registry, number):
    source = registry.client.get_model_version("shop", str(number)).source
    model = registry.client.get_logged_model(source.removeprefix("models:/"))
    return Path(model.artifact_location.removeprefix("file://"))


def goes_on(conf):
    """Judge the next batch."""
    registry = opened(conf)[1]
    before = len(records.read_history(registry).batches)
    try:
        monitor(conf)
    except RegistryError as error:  # it asks for a retrain, and no deployment carries it out
        assert str(error).startswith("Deployment train/shop does not exist")  # noqa: PT017
    assert len(records.read_history(registry).batches) > before


def promotions(conf):
    made = champions.changes(opened(conf)[1])
    return sum(change.kind == "promoted" for change in made)


def commands_in(findings):
    """Commands of Holdfast that cures name, as calls."""
    calls = {"rollback": rollback, "train": train, "monitor": monitor, "review": review}
    for finding in findings:
        for text in finding["cure"].split("`")[1::2]:
            program, name, *words = text.split()
            if program == "holdfast" and name in calls:
                options = dict(zip(words[1::2], words[2::2], strict=True))
                given = {key.removeprefix("--"): value for key, value in options.items()}
                yield calls[name], words[0], given


@pytest.mark.parametrize(
    ("fault", "says", "finds"),
    [
        pytest.param(*one, id=name, marks=() if name in SAMPLE else pytest.mark.night)
        for name, one in FAULTS.items()
    ],
)
def test_a_fault_gets_one_sentence_and_its_cure_lets_the_next_run_go_on(
    retrained, fault, says, finds
):
    _, registry = opened(retrained)
    fault(registry)

    if says:
        with pytest.raises(RegistryError, match=says) as failed:
            monitor(retrained)
        assert "\n" not in str(failed.value)
    else:
        goes_on(retrained)
    found = doctor(retrained)
    assert finds in " ".join(f"{one['what']} {one['cure']}" for one in found)
    assert finds or not found
    if says in {"was deleted in MLflow", "MLflow's store is damaged"}:
        return  # only MLflow's own commands, or a copy, can bring it back
    assert promotions(retrained) <= 2
    cures = list(commands_in(found))
    for call, conf, given in cures[:1]:
        call(conf, **given)
    if cures:
        goes_on(retrained)


@pytest.mark.parametrize("harmed", ["deleted", "cut", "files deleted"])
def test_a_champion_before_that_is_not_whole_is_never_gone_back_to(retrained, harmed):
    _, registry = opened(retrained)
    if harmed == "deleted":
        registry.client.delete_model_version("shop", "1")
    elif harmed == "cut":
        cut(files_of(registry, 1) / "data" / "bundle" / "heldout.parquet")
    else:
        shutil.rmtree(files_of(registry, 1))
    files_deleted(registry)

    with pytest.raises(RegistryError, match="before, if there is one"):
        monitor(retrained)
    with pytest.raises(RegistryError, match=r"go back to that is whole\. Train another"):
        rollback(retrained)
    assert opened(retrained)[1].alias("champion").number == 2
    assert train(retrained, until="2026-03-16")["promoted"]
    goes_on(retrained)


@pytest.mark.parametrize("name", ["cache", "locks"])
def test_a_file_in_the_place_of_a_folder_gets_one_sentence_and_a_cure_that_helps(retrained, name):
    folder = opened(retrained)[1].folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("")

    with pytest.raises(RegistryError, match=rf"/{name} must be a folder\. .* Move it away: `mv"):
        monitor(retrained)
    (found,) = doctor(retrained)
    assert found["what"].startswith(f"{folder} must be a folder.")
    subprocess.run(found["cure"].split("`")[1], shell=True, check=True)  # noqa: S602 -- as said
    goes_on(retrained)
    assert not doctor(retrained)


@pytest.mark.parametrize("how", ["cut", "written over", "a folder", "of something else"])
def test_a_damaged_outbox_is_named_with_its_cure(retrained, how):
    folder = opened(retrained)[1].folder
    file = folder / "pages.db"
    if how == "cut":
        cut(file)
    elif how == "written over":
        file.write_text("{oops" * 1_000)
    elif how == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.unlink()
        with closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE pages (other)")

    (found,) = doctor(retrained)

    assert found["what"].startswith(f"The outbox of pages, {file}, cannot be used (")
    assert "move it away" in found["cure"]
    file.rename(folder / "aside")
    assert not doctor(retrained)


def test_a_store_that_cannot_be_opened_gets_a_cure_that_is_another_command(retrained):
    store = opened(retrained)[1].folder / "mlflow.db"
    store.unlink()
    store.mkdir()

    (found,) = doctor(retrained)

    assert found["what"].startswith("MLflow's store cannot be opened: ")
    assert "move away what is in its place" in found["cure"]
    assert "holdfast doctor" not in found["cure"]


def test_every_kind_of_thing_that_a_run_writes_has_its_faults(retrained):
    goes_on(retrained)
    _, registry = opened(retrained)

    listed = {(place, name) for place, names in THINGS.items() for name in names}
    assert written(registry) ^ listed == set()


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "written over"])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param(*one, id=" ".join(one), marks=() if one in TRIED else pytest.mark.night)
        for one in ((place, name) for place, names in THINGS.items() for name in names)
    ],
)
def test_whatever_a_run_wrote_may_be_gone_or_damaged(retrained, place, name, deleted):
    harm(opened(retrained)[1], place, name, deleted=deleted)

    said = []
    for step in (monitor, doctor, monitor):
        try:
            step(retrained)
        except PipelineError as error:
            said.append(str(error))
    assert [text for text in said if "\n" in text or not text.endswith((".", "`"))] == []
    if not any("damaged" in text or "deleted in MLflow." in text for text in said):
        assert promotions(retrained) <= 2


def test_a_store_that_was_copied_is_read_and_written_at_its_new_place(retrained, tmp_path):
    folder = tmp_path / "a new place"
    conf = folder / "shop.yaml"
    shutil.copytree(tmp_path / "state", folder / "state")
    conf.write_text(Path(retrained).read_text().replace(f"{tmp_path}/state", f"{folder}/state"))
    before = sorted((tmp_path / "state" / "artifacts").rglob("*"))

    goes_on(str(conf))

    assert sorted((tmp_path / "state" / "artifacts").rglob("*")) == before
    assert not doctor(str(conf))
    with closing(sqlite3.connect(folder / "state" / "mlflow.db")) as store:
        (address,) = store.execute("SELECT artifact_location FROM experiments WHERE name = 'shop'")
    assert address == ((folder / "state" / "artifacts" / "shop").as_uri(),)


def test_the_number_of_a_deleted_version_is_not_given_to_another(retrained):
    _, registry = opened(retrained)
    registry.client.delete_model_version("shop", "2")
    rollback(retrained, reason="the champion was deleted")

    made = train(retrained, until="2026-03-23")

    assert made["version"] == 4
    substitute = registry.client.get_model_version("shop", "3")
    assert "deleted" in substitute.description


def test_a_version_that_somebody_else_registered_is_passed_over(retrained):
    _, registry = opened(retrained)
    registry.client.create_model_version("shop", "/nowhere")

    goes_on(retrained)
    (found,) = doctor(retrained)
    assert found["what"].startswith("Version 3 has lost its tags until, rows, sha256, or they ")
