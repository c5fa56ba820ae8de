import pandas as pd
import pytest

from pipeline.config import Settings
from pipeline.errors import UnavailableError
from pipeline.registry import Registry, _key

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path, data):
    return Settings(
        name="shop",
        task="classification",
        data=data.model_dump(mode="json"),
        tracking={"folder": tmp_path / "state"},
    )


@pytest.mark.parametrize("name", ["price [EUR]", "a=b", "naïve", "x{1}", "x/y", "share of A&B"])
def test_a_column_of_any_name_becomes_a_metric_that_mlflow_takes(settings, name):
    registry = Registry(settings)
    run_id = registry._run({"kind": "batch", "batch": "x"}, "x", pd.Timestamp("2026-01-05"))

    registry._log(run_id, {f"psi/{name}": 0.5}, pd.Timestamp("2026-01-12"), 0)

    metrics = registry.client.get_run(run_id).data.metrics
    assert metrics == {_key(f"psi/{name}"): 0.5}


def test_a_run_is_found_again_by_its_tags(settings):
    tags, start = {"kind": "batch", "batch": "2026-01-05T00:00"}, pd.Timestamp("2026-01-05")

    made = {Registry(settings)._run(tags, "x", start) for _ in range(3)}

    assert len(made) == 1


def test_two_models_in_one_process_keep_to_their_own_stores(settings, tmp_path):
    other = settings.model_copy(
        update={"tracking": settings.tracking.model_copy(update={"folder": tmp_path / "other"})}
    )
    one, two = Registry(settings), Registry(other)
    assert one.versions() == two.versions() == []

    assert one.uri != two.uri
    assert (tmp_path / "state" / "mlflow.db").exists()
    assert (tmp_path / "other" / "mlflow.db").exists()


def test_a_server_that_is_away_is_unavailable_not_broken(settings, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    with pytest.raises(UnavailableError, match="MLflow must answer"):
        Registry(settings).versions()
