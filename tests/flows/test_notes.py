"""What people see of runs in Prefect."""

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort
from prefect.flow_engine import run_flow

from flows.digest import digest
from flows.monitor import monitor
from flows.register import rollback
from flows.steps import opened
from flows.train import train
from pipeline.errors import PipelineError
from pipeline.registry import records

pytestmark = pytest.mark.integration


def newest_run():
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def newest_note(key):
    with get_client(sync_client=True) as client:
        named = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        found = client.read_artifacts(
            artifact_filter=named, sort=ArtifactSort.CREATED_DESC, limit=1
        )
    return found[0]


def test_a_monitor_run_is_named_for_its_batch_and_says_what_it_found(trained, caplog):
    monitor(trained)

    sentence = "Batch 2026-02-16T00:00 of shop, 336 rows: Quiet. Action: none."
    run, note = newest_run(), newest_note("shop-monitor")
    assert run.name == "monitor shop 2026-02-16T00:00"
    assert note.flow_run_id == run.id
    assert note.data.startswith(f"**{sentence}**\n")
    assert "| champion | version 1 |" in note.data
    assert sentence in caplog.messages


def test_the_note_and_the_run_of_mlflow_name_one_another(trained):
    monitor(trained)

    _, registry = opened(trained)
    (batch,) = records.read_history(registry).batches
    run = newest_run()
    tags = registry.client.get_run(batch.run_id).data.tags
    assert tags["prefect"].endswith(f"/runs/flow-run/{run.id}")
    assert f"[Prefect]({tags['prefect']})" in newest_note("shop-monitor").data


def test_a_training_run_is_named_for_its_version(trained):
    train(trained)

    assert newest_run().name == "train shop v2"
    assert newest_note("shop-train").data.startswith("**Version 2 of shop ")


def test_a_run_that_fails_is_named_for_its_model(shop):
    with pytest.raises(PipelineError):
        rollback(shop)

    assert newest_run().name == "rollback shop"


def test_a_run_whose_file_cannot_be_read_is_named_for_the_file(prefect, tmp_path):
    del prefect
    with pytest.raises(PipelineError):
        train(str(tmp_path / "flights.yaml"), until="2026-01-01")

    assert newest_run().name == "train flights 2026-01-01"


def as_scheduled(flow, conf):
    tags = ["auto-scheduled"]  # as Prefect's scheduler does
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow, parameters={"conf": conf}, tags=tags)
    return run_flow(flow, flow_run=run, parameters={"conf": conf})


def test_a_schedule_of_a_model_that_was_never_trained_fails_no_run(shop):
    result = as_scheduled(monitor, shop)

    assert result["reason"].startswith("No version was trained yet; nothing was judged.")
    with pytest.raises(PipelineError):
        monitor(shop)


def test_a_scheduled_digest_of_a_model_that_was_never_served_fails_no_run(shop):
    assert as_scheduled(digest, shop)["refused"] == 0
    with pytest.raises(PipelineError):
        digest(shop)
