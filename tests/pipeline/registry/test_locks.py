import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from pipeline.errors import UnavailableError
from pipeline.registry.locks import exclusive

pytestmark = pytest.mark.integration

HOLD = """
import sys, time
from pathlib import Path
from pipeline.registry.locks import exclusive
folder, database, name = sys.argv[1:]
with exclusive(name, folder=Path(folder), database=database or None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["file", "postgres"])
def place(request, tmp_path):
    database = request.getfixturevalue("postgres") if request.param == "postgres" else None
    return {"folder": tmp_path / "locks", "database": database}


@pytest.fixture
def holder(place):
    """Another process that holds the lock `a`."""
    command = [sys.executable, "-c", HOLD, str(place["folder"]), place["database"] or "", "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_can_be_taken_again_after_its_release(place):
    for _ in range(2):
        with exclusive("a", **place, patience=0):
            pass


def test_waiting_for_a_lock_ends_with_an_error_that_names_it(place, holder):
    with (
        pytest.raises(UnavailableError, match=r"process has held the lock 'a' .* 0\.3 seconds"),
        exclusive("a", **place, patience=0.3),
    ):
        raise AssertionError
    assert holder.poll() is None


def test_locks_of_different_names_do_not_wait_for_each_other(place, holder):
    with exclusive("b", **place, patience=0):
        assert holder.poll() is None


def test_the_lock_of_a_killed_process_is_free(place, holder):
    os.kill(holder.pid, signal.SIGKILL)

    with exclusive("a", **place, patience=10):
        assert holder.wait() == -signal.SIGKILL


def test_a_lock_is_released_when_its_block_raises(place):
    with pytest.raises(ZeroDivisionError), exclusive("a", **place, patience=0):
        _ = 1 / 0
    with exclusive("a", **place, patience=0):
        pass


def test_a_database_that_does_not_answer_is_unavailable_and_its_password_stays_secret(tmp_path):
    database = "postgresql+pg8000://me:secret@127.0.0.1:9/none"
    with (
        pytest.raises(UnavailableError, match=r"of tracking\.locks does not answer") as caught,
        exclusive("a", folder=tmp_path, database=database),
    ):
        raise AssertionError
    assert "secret" not in str(caught.value)


def test_a_database_that_cuts_off_the_call_is_unavailable(cut_off, tmp_path):
    with (
        pytest.raises(UnavailableError, match=r"locks does not answer \(ConnectionResetError\)"),
        exclusive("a", folder=tmp_path, database=cut_off),
    ):
        raise AssertionError


def end_connections(database, condition):
    """End connections to a database, as its restart does with all of them."""
    with sa.create_engine(database, poolclass=sa.pool.NullPool).connect() as connection:
        holders = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"  # noqa: S608 -- ours
        connection.execute(sa.text(f"{end} AND pid {condition} ({holders})"))


def test_a_block_whose_lock_was_lost_with_its_database_ends_as_usual(postgres, tmp_path):
    with exclusive("a", folder=tmp_path, database=postgres):
        end_connections(postgres, "IN")
        with exclusive("a", folder=tmp_path, database=postgres, patience=10):
            pass


def test_waiting_for_a_lock_ends_as_unavailable_when_its_database_is_gone(postgres, tmp_path):
    def wait():
        with exclusive("a", folder=tmp_path, database=postgres):
            raise AssertionError

    with exclusive("a", folder=tmp_path, database=postgres), ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait)
        while not waiting.done():
            end_connections(postgres, "NOT IN")
    with pytest.raises(UnavailableError, match=r"of tracking\.locks does not answer"):
        waiting.result()
