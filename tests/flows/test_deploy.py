import json
from datetime import UTC, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deploy import FLOWS, deploy
from flows.models import POOL, load
from pipeline.errors import ConfigError

pytestmark = [pytest.mark.integration, pytest.mark.team]


@pytest.fixture
def client(prefect):
    del prefect
    with get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def named(shop, request):
    """Writes the file of a model of a name nobody else has; its path."""

    def write(name="a", **monitoring):
        conf = yaml.safe_load(Path(shop).read_text())
        test = request.node.name.replace("_", "-").split("[")[0][:80]
        conf |= {"name": f"{test}-{name}", "monitoring": monitoring}
        path = Path(shop).with_name(f"{name}.yaml")
        path.write_text(yaml.safe_dump(conf))
        return str(path)

    return write


def name_of(conf):
    return yaml.safe_load(Path(conf).read_text())["name"]


def deployed(*confs):
    found = {one["deployment"].partition("/")[0]: one for one in deploy(load(confs))}
    assert [*found] == [*FLOWS]
    return found


def monitor_of(client, conf):
    return client.read_deployment_by_name(f"monitor/{name_of(conf)}")


def test_two_models_are_deployed_and_a_second_time_changes_nothing(named, client):
    confs = [named("a"), named("b", batch="12h")]

    first, second = deploy(load(confs)), deploy(load(confs))

    names = [f"{flow}/{name_of(conf)}" for conf in confs for flow in FLOWS]
    assert [one["deployment"] for one in first] == names
    assert {one["became"] for one in first} == {"created"}
    assert second == [one | {"became": "unchanged"} for one in first]
    assert client.read_work_pool(POOL).type == "process"


def test_what_changes_a_model_runs_one_at_a_time_in_the_folder_of_the_files(named, client):
    conf = named()
    deployed(conf)

    found = monitor_of(client, conf)

    assert found.entrypoint == "flows.monitor.monitor"
    assert found.parameters == {"conf": conf}
    assert found.work_pool_name == POOL
    assert found.tags == [POOL, name_of(conf)]
    assert found.concurrency_options.collision_strategy == "ENQUEUE"
    assert found.global_concurrency_limit.limit == 1
    assert [*found.pull_steps[0].values()] == [{"directory": str(Path.cwd())}]


@pytest.mark.parametrize(
    ("batch", "words", "late"),
    [
        ("7D", "every 7 days", "10min"),
        ("1D", "every day", "10min"),
        ("1h", "every hour", "6min"),
        ("90min", "every 90 minutes", "9min"),
    ],
)
def test_the_monitor_runs_soon_after_each_batch_of_the_first_version(named, batch, words, late):
    monitor = deployed(named(batch=batch))["monitor"]

    until = pd.Timestamp("2026-02-16")
    since = pd.Timestamp(monitor["next"]) - until - pd.Timedelta(late)
    assert monitor["schedule"] == words
    assert since % pd.Timedelta(batch) == pd.Timedelta(0)
    assert timedelta(0) <= pd.Timestamp(monitor["next"]) - now() <= pd.Timedelta(batch)


def now():
    return pd.Timestamp.now(UTC).tz_localize(None).floor("min")


def test_the_monitor_follows_the_batches_of_the_champion(trained, client):
    conf = yaml.safe_load(Path(trained).read_text())
    conf["training"]["until"] = "2026-02-17T05:00"  # of a first version that never came
    Path(trained).write_text(yaml.safe_dump(conf))

    deployed(trained)

    found = monitor_of(client, trained)
    for flow in FLOWS:  # other tests deploy a shop as well
        client.delete_deployment(client.read_deployment_by_name(f"{flow}/shop").id)
    assert found.schedules[0].slug == "every-7d-from-2000-01-03t00-10-00"


def test_a_schedule_follows_the_length_of_a_batch(named, client):
    deployed(named(batch="7D"))

    conf = named(batch="12h")
    followed = deployed(conf)

    assert [one["became"] for one in followed.values()].count("updated") == 1
    assert followed["monitor"]["became"] == "updated"
    (found,) = monitor_of(client, conf).schedules
    assert found.schedule.interval == timedelta(hours=12)
    assert deployed(conf)["monitor"]["became"] == "unchanged"


def pause(client, found):
    client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)


def pause_deployment(client, found):
    client.pause_deployment(found.id)


def move(client, found):
    schedule = CronSchedule(cron="0 9 * * 2", timezone="Europe/Vienna")
    client.update_deployment_schedule(found.id, found.schedules[0].id, schedule=schedule)


def remove(client, found):
    client.delete_deployment_schedule(found.id, found.schedules[0].id)


def add(client, found):
    client.create_deployment_schedules(found.id, [(CronSchedule(cron="0 9 * * 2"), True)])


@pytest.mark.parametrize(
    ("change", "said", "words"),
    [
        (pause, "its schedule is paused", None),
        (pause_deployment, "the deployment is paused", None),
        (move, "its schedule was changed", "0 9 * * 2 (Europe/Vienna)"),
        (remove, "its schedule was removed", None),
        (add, "its schedule was changed", "0 9 * * 2 (UTC) and every 7 days"),
    ],
)
def test_a_schedule_that_a_person_changed_is_left_as_it_is(named, client, change, said, words):
    conf = named(change.__name__.replace("_", "-"))
    deployed(conf)
    change(client, monitor_of(client, conf))
    before = monitor_of(client, conf)

    named(change.__name__.replace("_", "-"), batch="12h")
    monitor = deployed(conf)["monitor"]

    after = monitor_of(client, conf)
    assert (after.schedules, after.paused) == (before.schedules, before.paused)
    assert monitor["changed"] == said
    if words:
        assert sorted(monitor["schedule"].split(" and ")) == words.split(" and ")
    else:
        assert (monitor["schedule"], monitor["next"]) == (None, None)


def test_parameters_tags_and_pools_of_people_stay(named, client):
    conf = named()
    deployed(conf)
    client.request(
        "PATCH",
        "/deployments/{id}",
        path_params={"id": monitor_of(client, conf).id},
        json={"tags": ["ours"], "entrypoint": "flows/monitor.py:monitor"},
    )

    assert deployed(conf)["monitor"]["became"] == "updated"

    found = monitor_of(client, conf)
    assert (found.tags, found.entrypoint) == (["ours"], "flows.monitor.monitor")


def test_the_command_says_what_runs_when(named, holdfast):
    conf = named()

    code, out, _ = holdfast("deploy", conf)

    shown = out.splitlines()
    assert code == 0
    assert shown[0].startswith(f"monitor/{name_of(conf)}  every 7 days, next 20")
    assert shown[1].startswith(f"digest/{name_of(conf)}  every 7 days, next 20")
    assert shown[2] == f"{len(FLOWS)} deployments: {len(FLOWS)} created."

    code, out, _ = holdfast("deploy", conf, "--json")

    became = [one["became"] for one in json.loads(out)["deployments"]]
    assert (code, became) == (0, ["unchanged"] * len(FLOWS))


def test_a_server_that_is_not_named_is_one_sentence_with_the_cure(named, holdfast):
    with temporary_settings(restore_defaults=[PREFECT_API_URL]):
        code, out, err = holdfast("deploy", named())

    assert (code, out) == (2, "")
    assert err == (
        "PREFECT_API_URL is not set, so there is no server to deploy to. Export it, or run "
        "`holdfast up`, which starts a server and deploys to it.\n"
    )


def test_a_server_that_does_not_answer_is_one_sentence(named, holdfast):
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, out, err = holdfast("deploy", named())

    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("Prefect's API at http://127.0.0.1:9/api did not take the deployments (")
    assert "Start its server or correct PREFECT_API_URL" in line


def test_all_files_of_the_folder_conf_are_taken_where_none_is_named(named, monkeypatch):
    folder = Path(named("a")).parent
    (folder / "conf").mkdir()
    for name in ("a", "b"):
        Path(named(name)).rename(folder / "conf" / f"{name}.yaml")
    monkeypatch.chdir(folder)

    assert [model.conf for model in load(())] == ["conf/a.yaml", "conf/b.yaml"]


def test_mistakes_of_all_files_come_at_once(named, tmp_path, monkeypatch):
    (tmp_path / "empty.yaml").write_text("name: x\n")
    twin = tmp_path / "twin.yaml"
    twin.write_text(Path(named()).read_text())

    with pytest.raises(ConfigError) as caught:
        load([str(tmp_path / "empty.yaml"), named(), str(twin)])

    assert "empty.yaml cannot be used:" in str(caught.value)
    assert f"Got '{name_of(twin)}' in {named()}, {twin}. Rename." in str(caught.value)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"There is no conf/\*\.yaml in "):
        load(())
