from pathlib import Path

import pytest
import yaml

from flows.replay import replay
from flows.steps import opened

pytestmark = [pytest.mark.integration, pytest.mark.team, pytest.mark.night]

SLICE = """
from functools import cache

from examples import flights


@cache
def slice_of_all():
    return flights.rows(None, None).iloc[::6].reset_index(drop=True)


def rows(start, end):
    found = slice_of_all()
    inside = found["scheduled"] < end if end else found["scheduled"].notna()
    inside &= found["scheduled"] >= start if start else True
    return found[inside].reset_index(drop=True)
"""


@pytest.fixture(scope="module")
def conf(tmp_path_factory, prefect):
    """Conf of a model of a sixth of the flights."""
    del prefect
    folder = tmp_path_factory.mktemp("flights")
    (folder / "slice_of_flights.py").write_text(SLICE)
    settings = yaml.safe_load(Path("conf/flights.yaml").read_text(encoding="utf-8"))
    settings["data"]["train"]["function"] = "slice_of_flights:rows"
    settings["training"]["params"] |= {"n_estimators": 60, "min_child_weight": 10, "n_jobs": 1}
    settings["tracking"] = {"folder": str(folder / "state")}
    path = folder / "flights.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield str(path)


def test_a_sixth_of_the_flights_trains_drifts_retrains_and_promotes(conf):
    pieces = [replay(conf, batches=n) for n in (3, 1, 5, 5)]

    story = pieces[-1]
    asked = [row for row in story if row["action"] == "retrain"]
    assert story[:9] == pieces[-2]
    assert len(story) == 14
    assert "temp" in asked[0]["drifted"]
    assert "2013-04-09" <= asked[0]["batch"] <= "2013-05-14"
    assert story[-1]["version"] > 1
    assert opened(conf)[1].champion().episode
