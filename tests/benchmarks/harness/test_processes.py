import sys

import pytest

from benchmarks.harness.processes import ChildError, last_json, output


def test_a_failed_process_is_reported_with_the_end_of_what_it_said():
    script = "import sys; sys.stderr.write('x' * 9000 + 'the reason'); sys.exit(3)"

    with pytest.raises(ChildError, match=r"-c .* failed\.\nx+the reason") as raised:
        output(sys.executable, "-c", script)

    assert len(str(raised.value)) < 4_000


def test_a_program_that_does_not_exist_is_reported_by_name():
    with pytest.raises(ChildError, match="`no-such-program` failed"):
        output("no-such-program")


def test_the_environment_of_a_process_can_be_set():
    script = "import os; print('more'); print(os.environ['GIVEN'])"

    assert last_json(output(sys.executable, "-c", script, GIVEN='{"a": 1}')) == {"a": 1}
