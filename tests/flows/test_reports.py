import html
import re

import mlflow
import pytest

from flows.steps import opened
from pipeline.registry import champions, records
from pipeline.registry.cards import CARD
from pipeline.reporting.wording import STATES

pytestmark = pytest.mark.integration


def artifact(registry, run_id, name):
    registry.client  # noqa: B018 -- sets MLflow's address
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{name}")


def words(page):
    """The text of a page on one line."""
    body = page.split("</style>")[1]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_each_batch_has_a_page_that_follows_its_labels(replayed):
    _, registry = opened(replayed)
    batches = records.read_history(registry).batches

    assert len({batch.state for batch in batches}) > 1
    for place, batch in enumerate(batches):
        said = words(artifact(registry, batch.run_id, records.PAGE))
        run = registry.run_of(batch.run_id)
        assert said.startswith(f"{STATES[batch.state]}. ")
        assert run.data.tags["state"] == batch.state
        assert run.info.run_name.startswith(f"batch {batch.name}: {STATES[batch.state].lower()}")
        assert f"{place + 1} batch" in said
        assert batch.performance is not None
        assert f"{abs(batch.performance.change):.1%}" in said
        assert "No label of this batch had come" not in said


def test_a_batch_is_charted_by_what_it_is_as_a_whole(replayed):
    _, registry = opened(replayed)
    batch = records.read_history(registry).batches[0]

    measured = registry.run_of(batch.run_id).data.metrics

    assert {"rows", "alarm", "mean_prediction"} <= measured.keys()
    assert not [name for name in measured if "/" in name]


def test_indicators_are_shown_beside_training_with_their_limits(replayed):
    _, registry = opened(replayed)
    batch = records.read_history(registry).batches[-1]
    timeline = registry.run_of(batch.run_id).data.tags["mlflow.parentRunId"]

    said = words(artifact(registry, batch.run_id, records.PAGE))
    charted = registry.run_of(timeline).data.metrics
    stored = registry.bundle(batch.version).manifest["indicators"]

    for name in ("mean_prediction", "mean_confidence", "valid_share"):
        assert f" {name} " in said
        found = [charted[f"indicator/{name} {end}"] for end in ("lowest", "baseline", "highest")]
        assert found == pytest.approx([0.95 * found[1], found[1], 1.05 * found[1]])
    kept = registry.read_frame(batch.run_id, records.PREDICTIONS)
    halved = kept["halved"]
    assert charted["indicator/mean_prediction"] == pytest.approx(halved.mean())
    assert charted["indicator/mean_confidence"] == pytest.approx(abs(halved - 0.5).mean() + 0.5)
    assert charted["indicator/mean_prediction baseline"] == stored["mean_prediction"][0]


def test_the_record_of_a_batch_is_small_and_its_tests_are_a_table(replayed):
    _, registry = opened(replayed)
    batch = records.read_history(registry).batches[-1]

    assert len(artifact(registry, batch.run_id, records.REPORT)) < 10_000
    tests = registry.read_frame(batch.run_id, records.FINDINGS)
    assert {"name", "level", "kind", "statistic", "p_value", "drifted"} <= {*tests.columns}
    assert len(tests) == registry.read(batch.run_id, records.REPORT)["tests"]


def test_each_version_has_a_card_with_the_decision_of_the_gate(replayed):
    _, registry = opened(replayed)

    for version in registry.versions():
        said = words(artifact(registry, version.run_id, CARD))
        assert said.startswith(f"shop, version {version.number}. It passed the gate. ")
        assert version.reason in said
        assert ("the champion of then" in said) == (version.number > 1)
        assert version.tags["git_commit"] in said


def test_the_registered_model_says_who_is_champion_and_why(replayed):
    _, registry = opened(replayed)
    last = champions.changes(registry)[-1]

    found = registry.client.get_registered_model(registry.name)

    assert found.description.startswith(f"**Version {last.version} is the champion**, promoted")
    assert last.reason in found.description
    assert not [key for key in found.tags if key.startswith("change.")]
