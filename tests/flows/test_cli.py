import json
import logging
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import flows
from flows.cli import app, main
from flows.session import session
from flows.steps import opened
from pipeline.errors import UnavailableError
from pipeline.registry import records

ROOT = Path(__file__).parents[2]
COMMANDS = [name for name in app if not name.startswith("-")]
OF_ONE_MODEL = [name for name in COMMANDS if name not in {"init", "up", "deploy", "schema"}]
REST = {"register": ["1"], "export": ["out"], "score": ["out.csv"]}
REST |= {"backup": ["out.tar.gz"], "restore": ["in.tar.gz"]}
REST |= {"promote": ["--from", "staging"]}
REST |= {"replay-captures": ["--from", "staging", "--start", "2026-03-01"]}
REST |= {"forget": ["--key", "4711", "--reason", "asked"]}
"""What a command needs after the model's file."""
MODULES = sorted(
    path.stem for path in Path(flows.__file__).parent.glob("*.py") if "@flow(" in path.read_text()
)
BATCH = "2026-02-16T00:00"


def in_a_process(*arguments, **options):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    environment = kept | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(*arguments, **options):
    process = in_a_process(*arguments, **options)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def one_line(text):
    lines = text.splitlines()
    # A process says once that nobody is paged, with the first page, whichever test that is in.
    (line,) = [line for line in lines if not line.startswith("Nobody is paged, because")]
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_explains_it_and_each_of_its_parameters(name, capsys):
    assert main([name, "--help"]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: holdfast {name}")
    assert max(map(len, shown.splitlines())) <= 80
    for argument in app[name].assemble_argument_collection(parse_docstring=True):
        if argument.name != "*":
            assert argument.name in shown
            assert argument.parameter.help


@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_the_first_argument_of_a_command_on_one_model_is_its_file(name):
    first = app[name].assemble_argument_collection()[0]

    assert first.name == "CONF"


def test_every_deployed_flow_has_a_command():
    from flows.deploy import FLOWS  # noqa: PLC0415 -- slow to import

    assert FLOWS.keys() <= set(COMMANDS)


def test_help_and_version_import_nothing_heavy():
    program = """
import sys
from flows.cli import main
assert main(["--help"]) == main(["train", "--help"]) == main(["--version"]) == 0
heavy = {"fastapi", "mlflow", "numpy", "pandas", "prefect", "pydantic", "sklearn", "xgboost"}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_a_folder_that_no_address_may_hold_is_refused_unless_the_state_is_elsewhere(
    tmp_path, write_shop
):
    odd = tmp_path / "a #1 100% ?"
    odd.mkdir()
    conf = Path(write_shop(odd))
    conf.write_text(conf.read_text().replace(f"tracking:\n  folder: {odd / 'state'}\n", ""))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    code, _, err = finished("flows.cli", "check", str(conf), cwd=odd, env=environment)

    assert (code, "Traceback" in err) == (2, False)
    assert "must not hold # or % or ?, which mean something in MLflow's address" in err
    environment["HOLDFAST__TRACKING__FOLDER"] = str(tmp_path / "state")
    code, out, err = finished("flows.cli", "doctor", str(conf), cwd=odd, env=environment)
    assert "has no champion yet" in out + err


@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_a_missing_model_file_is_refused_in_one_sentence(name, capsys):
    assert main([name, "conf/none.yaml", *REST.get(name, [])]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert one_line(err).startswith("conf/none.yaml ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian", "x.yaml"], 'Unknown command "trian". Did you mean "train"?'),
        (["train"], "requires an argument"),
        (["train", "x.yaml", "--jsn"], "Unknown option: --jsn. Did you mean --json?"),
        (["register", "x.yaml", "two"], 'unable to convert "two" into int'),
        (["monitor", "x.yaml", "--batch", "soon"], "must be a date or time such as 2013-02-26"),
        (["replay", "x.yaml", "--batches", "-1"], "Must be >= 0"),
        (["review", "x.yaml", "--batch", BATCH], "--batch and --answer must come together."),
        (["review", "x.yaml", "--answer", "drop"], "--batch and --answer must come together."),
        (["review", "x.yaml", "--batch", BATCH, "--answer", "keep"], 'Choose from: "accept"'),
        (["serve"], "No model is named."),
    ],
)
def test_words_that_make_no_command_are_refused_in_one_sentence(
    arguments, sentence, capsys, monkeypatch
):
    monkeypatch.delenv("MODEL_DIR", raising=False)

    assert main(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in one_line(err)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_flows_that_is_run_as_a_script_names_the_command_line(name):
    as_module = finished(f"flows.{name}", "conf/flights.yaml", cwd=ROOT)
    script = [sys.executable, f"flows/{name}.py", "conf/flights.yaml"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    as_file = subprocess.run(
        script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    sentence = f"flows.{name} is not a script. Run `holdfast {name} conf/<model>.yaml`"
    for code, out, err in [as_module, (as_file.returncode, as_file.stdout, as_file.stderr)]:
        assert (code, out) == (2, "")
        assert one_line(err).startswith(sentence)


def test_the_schema_is_written_where_editors_look_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "--write"]) == 2
    assert "conf/schema.json is written in a folder that has conf/." in capsys.readouterr().err
    (tmp_path / "conf").mkdir()

    assert main(["schema", "--write"]) == 0

    written = (tmp_path / "conf" / "schema.json").read_text()
    assert written == (ROOT / "conf" / "schema.json").read_text()


def in_a_shell(*arguments, redirected):
    line = f'exec "$@" {redirected}'
    command = ["/bin/sh", "-c", line, "sh", sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["--help", "schema"])
def test_output_that_cannot_be_written_fails_with_one_sentence(command):
    done = in_a_shell(command, redirected=">/dev/full")

    assert done.returncode == 1
    assert one_line(done.stderr).startswith("The output cannot be written (")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_standard_streams_do_not_change_the_exit_code(closed):
    done = in_a_shell("validate", "missing.yaml", redirected=closed)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.integration
def test_a_model_is_trained_watched_rolled_back_and_released(holdfast, shop):
    assert holdfast("validate", shop) == (
        0,
        "4,368 rows of shop read, 4,368 valid, 0 quarantined.\n",
        "",
    )

    code, out, err = holdfast("train", shop)
    assert (code, err) == (0, "")
    assert one_line(out).startswith("Version 1 of shop is the champion. The gain over the baseline")

    code, out, err = holdfast("monitor", shop)
    assert (code, err) == (0, "")
    assert one_line(out).startswith("Batch 2026-02-16T00:00 of shop, 336 rows: Quiet. Action: none")

    code, out, err = holdfast("train", shop, "--until", "2026-02-23", "--json")
    assert (code, err) == (0, "")
    assert json.loads(one_line(out)).items() >= {"version": 2, "promoted": True}.items()

    code, out, _ = holdfast("rollback", shop, "--reason", "a test")
    assert code == 0
    assert "Version 1 of shop is the champion again; it was version 2." in out
    assert f"until `holdfast release {shlex.quote(shop)}`" in out

    code, out, _ = holdfast("register", shop, "2")
    assert code == 0
    assert f"Version 2 of shop passed and waits for `holdfast release {shlex.quote(shop)}`." in out

    assert holdfast("release", shop)[:2] == (
        0,
        (
            "Versions of shop are promoted again. Waited until now: version 2. "
            "The champion is version 2.\n"
        ),
    )


@pytest.mark.integration
def test_an_expected_error_is_one_sentence_and_its_traceback_is_in_the_log(holdfast, shop):
    (Path(shop).parent / "rows.parquet").unlink()

    code, out, err = holdfast("train", shop)

    assert (code, out) == (2, "")
    assert "rows.parquet" in one_line(err)
    log = (Path(shop).parent / "state" / "logs" / "holdfast.log").read_text()
    assert "Traceback (most recent call last):" in log
    assert log.rstrip().endswith(one_line(err))


@pytest.mark.integration
def test_logs_in_json_name_the_run_of_each_record_and_keep_stdout_as_it_is(holdfast, shop):
    plain = holdfast("validate", shop, "--json")

    code, out, err = holdfast("validate", shop, "--json", "--log-format", "json")

    assert (code, out) == plain[:2]
    records = [json.loads(line) for line in err.splitlines()]
    assert "validate shop" in {one.get("flow_run_name") for one in records}
    log = opened(shop)[0].tracking.folder / "logs" / "holdfast.log"
    assert err.splitlines()[-1] in log.read_text().splitlines()


def test_verbose_shows_the_traceback_of_an_expected_error(holdfast, shop):
    (Path(shop).parent / "rows.parquet").unlink()

    code, _, err = holdfast("train", shop, "--verbose")

    assert code == 2
    assert "Traceback (most recent call last):" in err
    assert "rows.parquet" in err.splitlines()[-1]


@pytest.mark.integration
def test_an_address_that_is_taken_is_refused_in_one_sentence(holdfast, trained, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HOLDFAST__SERVING__PORT", str(taken.getsockname()[1]))

        code, _, err = holdfast("serve", trained)

    assert code == 2
    assert "must be an address that is free" in one_line(err)


@pytest.mark.integration
def test_a_damaged_store_of_prefect_is_one_sentence(holdfast, shop, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "prefect.db").write_bytes(bytes(range(256)))

    code, _, err = holdfast("validate", shop)

    assert code == 1
    assert "is damaged. Remove it" in one_line(err)


@pytest.mark.integration
def test_a_disk_without_room_is_refused_in_one_sentence(holdfast, shop, monkeypatch):
    monkeypatch.setattr("flows.session._ROOM", 2**50)

    code, _, err = holdfast("validate", shop)

    assert code == 1
    assert re.search(r"must have \d+ MiB of room\. Got \d+ MiB\. Make room, or ", one_line(err))


@pytest.mark.integration
def test_a_home_of_prefect_without_room_is_refused_in_one_sentence(holdfast, shop, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", "/proc")  # a disk that is always full
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    code, _, err = holdfast("validate", shop)

    assert code == 1
    assert one_line(err).startswith(("The disk of /proc must have 64 MiB", "/proc must be a writ"))
    assert "PREFECT_HOME" in err


@pytest.mark.integration
def test_a_file_in_the_place_of_the_home_of_prefect_is_named(holdfast, shop, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home" / "below"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "home").write_text("")

    code, _, err = holdfast("validate", shop)

    assert code == 1
    assert one_line(err).startswith(f"{tmp_path}/home must be a folder. ")


@pytest.fixture
def no_handlers():
    """Closes the handlers of logs that a session leaves to its process."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in {*root.handlers} - {*before}:
        handler.close()
    root.handlers[:] = before
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "shop.yaml").mkdir(),
        lambda folder: (folder / "shop.yaml" / "below").mkdir(),
        lambda folder: (folder / ("x" * 300)).write_text(""),
        lambda folder: folder.write_text(""),
        lambda folder: folder.rmdir(),
    ],
)
def test_what_a_disk_does_not_take_is_said_in_one_sentence(make_conf, tmp_path, no_handlers, act):
    del no_handlers
    conf = make_conf()

    with pytest.raises(UnavailableError) as caught, session(conf, live=False):
        act(tmp_path)

    assert str(caught.value).startswith("The disk does not take what has to be written (")
    assert "\n" not in str(caught.value)


def test_an_environment_that_is_not_in_utf_8_is_refused_in_one_sentence():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    code, out, err = finished("flows.cli", "check", "conf/flights.yaml", env=ascii_only)

    assert (code, out) == (2, "")
    assert one_line(err).startswith("Names and contents of files must be in UTF-8. Got ascii from ")


@pytest.mark.team
@pytest.mark.integration
def test_neither_the_language_nor_the_zone_of_a_machine_changes_what_is_trained_and_judged(
    tmp_path, write_shop
):
    home = {"PREFECT_HOME": str(tmp_path / "Tromsø")}  # made once, which takes it seconds
    plain = home | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    odd = home | {"LC_ALL": "C", "TZ": "America/New_York"}
    found = []
    for name, env in (("plain", plain), ("Tromsø / 東京 b", odd)):
        (tmp_path / name).mkdir(parents=True)
        conf = write_shop(tmp_path / name)
        for command in ("train", "monitor"):
            code, _, err = finished("flows.cli", command, conf, "--json", env=env)
            assert (code, err.count("Traceback")) == (0, 0), err
        registry = opened(conf)[1]
        (batch,) = records.read_history(registry).batches
        tags = registry.version(1).tags
        trained = [tags[key] for key in ("since", "until", "rows")]
        found.append((trained, batch.name, batch.rows, batch.drifted, batch.verdict))

    assert found[0] == found[1]
    assert found[0][1] == BATCH


@pytest.mark.integration
def test_a_log_that_cannot_be_written_is_refused_in_one_sentence(holdfast, shop):
    log = Path(shop).parent / "state" / "logs" / "holdfast.log"
    log.mkdir(parents=True)

    code, _, err = holdfast("validate", shop)

    assert code == 2
    assert one_line(err).startswith("tracking.folder must be a writable folder. ")


@pytest.mark.integration
def test_an_unexpected_error_is_one_line_that_names_the_log(holdfast, make_conf, monkeypatch):
    conf = make_conf()

    def broken(*_, **__):
        message = "a bug\nof ours"
        raise ZeroDivisionError(message)

    monkeypatch.setattr("flows.digest.opened", broken)

    code, out, err = holdfast("digest", conf)

    log = Path(conf).parent / "state" / "logs" / "holdfast.log"
    assert (code, out) == (1, "")
    assert one_line(err) == f"ZeroDivisionError: a bug of ours. The whole traceback is in {log}."
    assert "in broken" in log.read_text()


@pytest.mark.integration
def test_what_the_registry_refuses_fails_with_one_sentence(holdfast, shop):
    code, out, err = holdfast("rollback", shop)

    assert (code, out) == (1, "")
    assert one_line(err).startswith("Model 'shop' ")


@pytest.mark.integration
def test_a_broken_batch_is_listed_and_answered(holdfast, shop, make_shop_rows):
    rows = make_shop_rows()
    rows.loc[rows["at"].between(BATCH, "2026-02-23", inclusive="left"), "age"] *= 100
    rows.to_parquet(Path(shop).parent / "rows.parquet")
    holdfast("train", shop)

    code, out, _ = holdfast("monitor", shop)
    assert code == 0
    assert "Broken: unit (age)." in out

    code, out, _ = holdfast("review", shop)
    assert code == 0
    assert "unit (age)" in out
    table, _ = out.split("To do, today: ")
    assert max(map(len, table.splitlines())) <= 110
    assert f"holdfast review {shlex.quote(shop)} --batch {BATCH} --answer reload" in out

    code, out, _ = holdfast("review", shop, "--json")
    (waiting,) = json.loads(one_line(out))["waiting"]
    assert (waiting["batch"], waiting["causes"]) == (BATCH, ["unit (age)"])

    code, _, err = holdfast("review", shop, "--batch", "2030-01-07", "--answer", "drop")
    assert code == 1
    assert one_line(err).startswith("Batch 2030-01-07T00:00 of 'shop' ")
    given = ("--batch", "2026-02-16", "--answer", "drop", "--reason", "seen")
    assert holdfast("review", shop, *given)[:2] == (
        0,
        f"Recorded: drop for batch {BATCH}.\nNo broken batch of shop waits for an answer.\n",
    )
    assert records.read_history(opened(shop)[1]).batches[0].answer == "drop"


@pytest.mark.integration
def test_a_replay_shows_a_table_and_its_json_has_no_number_that_json_has_not(holdfast, shop):
    code, out, err = holdfast("replay", shop, "--batches", "1")
    assert (code, err) == (0, "")
    assert "│ 2026-02-16 │  336 │" in out
    *table, said, picture = out.splitlines()
    assert max(map(len, table)) <= 110
    assert said.startswith("1 batch judged, 0 retrains asked for, 1 champion serv")
    assert Path(picture.removeprefix("The picture of it: ")).is_file()

    code, out, _ = holdfast("replay", shop, "--batches", "0", "--json")
    batches = json.loads(one_line(out), parse_constant=pytest.fail)["batches"]
    assert [one["batch"] for one in batches] == ["2026-02-16"]


@pytest.mark.integration
def test_a_champion_is_exported_to_a_folder(holdfast, shop, tmp_path):
    holdfast("train", shop)
    folder = tmp_path / "the model"

    code, out, err = holdfast("export", shop, str(folder))

    assert (code, err) == (0, "")
    assert out.endswith(f"Serve it: MODEL_DIR={shlex.quote(str(folder))} holdfast serve\n")
    assert (folder / "manifest.json").exists()


OWN_SOURCE = """
import time
from pathlib import Path
import pandas as pd

print("loading")

def rows(start, end):
    print("reading")
    rows = pd.read_parquet("rows.parquet")
    return rows[rows["at"] < end]

def never(start, end):
    Path("reading").touch()
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path, write_shop):
    """A folder with a space in its name, and a model with a source of its own in it."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    conf = Path(write_shop(folder))
    (folder / "own.py").write_text(OWN_SOURCE)
    values = yaml.safe_load(conf.read_text())
    del values["tracking"]
    for name in ("rows", "never"):
        values["data"]["train"] = {"kind": "function", "function": f"own:{name}"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.mark.team
@pytest.mark.integration
def test_a_command_runs_in_any_folder_without_a_server(folder):
    code, out, err = finished("flows.cli", "train", "rows.yaml", "--json", cwd=folder)

    assert (code, {*err.splitlines()}) == (0, {"loading", "reading"})
    assert json.loads(one_line(out)).items() >= {"version": 1, "promoted": True}.items()
    assert (folder / ".holdfast" / "prefect").is_dir()
    assert "ERROR" not in (folder / ".holdfast" / "logs" / "holdfast.log").read_text()


@pytest.mark.team
@pytest.mark.integration
def test_an_interrupt_ends_a_command_quietly(folder):
    process = in_a_process("flows.cli", "train", "never.yaml", cwd=folder, start_new_session=True)
    deadline = time.monotonic() + 240
    while not (folder / "reading").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)

    os.killpg(process.pid, signal.SIGINT)

    assert process.communicate(timeout=60) == ("loading\n", "")  # by the source itself
    assert process.returncode == 130


@pytest.mark.team
@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "variable", "sentence"),
    [
        (["monitor"], "PREFECT_API_URL", "Prefect's API at http://127.0.0.1:9/api does not answer"),
        (["export", "out"], "MLFLOW_TRACKING_URI", "MLflow "),
    ],
)
def test_a_server_that_is_down_fails_a_command_with_one_sentence(
    tmp_path, write_shop, command, variable, sentence
):
    address = {variable: "http://127.0.0.1:9/api"}
    name, *rest = command
    code, out, err = finished(
        "flows.cli", name, write_shop(tmp_path), *rest, env=address, cwd=tmp_path
    )

    assert (code, out) == (1, "")
    assert one_line(err).startswith(sentence)


@pytest.mark.integration
def test_the_test_page_exits_with_1_if_an_address_did_not_take_it(
    holdfast, shop, receive, monkeypatch
):
    sound, refuses = receive(), receive("answers 500")
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", json.dumps([sound.url, refuses.url]))

    code, out, err = holdfast("page", shop, "--test")

    assert (code, out) == (1, "1. json:// took it.\n2. json://: refused (HTTP 500).\n")
    assert one_line(err).startswith("An address did not take the test page.")
    assert holdfast("page", shop) == (0, "0 pages of shop not taken by every address.\n", "")
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", json.dumps([sound.url]))
    assert holdfast("page", shop, "--test")[0] == 0
