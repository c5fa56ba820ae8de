import sys
from io import StringIO

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from rich.console import Console

from flows.monitor import monitor
from flows.review import main, review, table
from flows.steps import opened
from flows.train import train
from pipeline import records
from pipeline.errors import RegistryError

pytestmark = pytest.mark.integration

BATCH = "2026-02-16T00:00"


@pytest.fixture
def broken(shop, tmp_path, make_shop_rows):
    """A shop whose first batch is broken; the path of the conf."""
    rows = make_shop_rows()
    times = rows["at"]
    inside = (times >= BATCH) & (times < pd.Timestamp(BATCH) + pd.Timedelta("7D"))
    rows.loc[inside, "age"] *= 100
    rows.to_parquet(tmp_path / "rows.parquet")
    train(shop)
    monitor(shop)
    return shop


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["flows.review", *arguments])
    return main()


def test_open_questions_are_given_and_shown(broken):
    (question,) = review(broken)

    _, registry = opened(broken)
    (cause,) = records.causes(registry, records.batches(registry)[0])
    assert question == {
        "batch": BATCH,
        "causes": ["unit (age)"],
        "sentences": [cause.sentence],
        "cures": [cause.cure],
    }
    with get_client(sync_client=True) as client:
        shown = client.request("POST", "/artifacts/latest/filter", json={}).json()
    (artifact,) = [one for one in shown if one["key"] == "shop-review"]
    assert cause.cure in artifact["data"]
    assert artifact["description"].startswith("1 broken batches of shop")


@pytest.mark.parametrize(("answer", "set_aside"), [("accept", False), ("drop", True)])
def test_an_answer_closes_the_question(broken, answer, set_aside):
    assert review(broken, batch="2026-02-16", answer=answer, reason="a test") == []

    (batch,) = records.batches(opened(broken)[1])
    assert (batch.answer, batch.set_aside) == (answer, set_aside)


@pytest.mark.parametrize("half", [{"batch": BATCH}, {"answer": "drop"}])
def test_half_an_answer_is_refused(broken, half):
    with pytest.raises(RegistryError, match="must name a batch and say accept or drop"):
        review(broken, **half)

    assert records.batches(opened(broken)[1])[0].answer == ""


def test_the_command_line_lists_answers_and_says_when_nothing_is_open(broken, monkeypatch, capsys):
    assert run(monkeypatch, broken) == 0
    listed = capsys.readouterr().out
    assert "unit (age)" in listed
    assert f"python -m flows.review {broken} --batch {BATCH}" in listed

    assert run(monkeypatch, broken, "--batch", BATCH, "--answer", "drop", "--reason", "bad") == 0
    said = capsys.readouterr().out
    assert said == f"Recorded: drop for {BATCH}.\nNo broken batch waits for an answer.\n"


def test_an_answer_that_cannot_be_recorded_is_one_sentence(broken, monkeypatch, capsys):
    assert run(monkeypatch, broken, "--batch", "2030-01-07", "--answer", "drop") == 2

    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("Batch 2030-01-07 of 'shop' must be a broken one to be answered.")


def test_a_column_of_any_name_is_shown_as_it_is():
    console = Console(width=120, file=StringIO())
    question = {"causes": ["unit (x [red])", "sign (y)"], "sentences": ["s"], "cures": ["c"]}

    console.print(table([question | {"batch": BATCH}]))

    drawn = console.file.getvalue()
    assert "unit (x [red])" in drawn
    assert "sign (y)" in drawn
