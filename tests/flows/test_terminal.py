from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from flows.tables import replay_table, review_table
from flows.terminal import (
    closing,
    print_json,
    show_backtest,
    show_validation,
)

SHOP = SimpleNamespace(name="shop", loss="log_loss", conf="conf/shop.yaml")


def row(**changes):
    scores = {"roc_auc": 0.75, "log_loss": 0.5}
    return {
        "batch": "2026-02-16",
        "rows": 1_336,
        "drifted": [],
        "causes": [],
        "accepted_unanswered": [],
        "action": "none",
        "reason": "Quiet.",
        "state": "quiet",
        "version": 1,
        "maintained": scores,
        "alone": {"roc_auc": 0.7, "log_loss": 0.6},
    } | changes


def drawn(table):
    console = Console(width=200, file=StringIO())
    console.print(table)
    return console.file.getvalue()


def test_a_replay_has_one_row_for_each_batch():
    names = ["age", "plan [red]", "c", "d", "e"]
    story = [row(), row(batch="2026-02-23", causes=names, action="page", alone={})]

    shown = drawn(replay_table(story, "classification"))

    assert "│ 2026-02-16 │ 1,336 │" in shown
    assert "0.750 │      0.700 │      0.500 │      0.600 │" in shown
    assert "broken: age" in shown
    assert "plan [red]" in shown
    assert "d ..." in shown
    assert "nan" in shown


def test_an_action_without_drift_of_its_own_batch_has_its_reason_beside_it():
    story = [row(action="retrain", reason="Drift of age persists.")]

    assert "Drift of age persists." in drawn(replay_table(story, "classification"))


def test_a_narrow_replay_fits_80_columns_and_cuts_no_word():
    names = ["carrier ~ engine", "temp", "all columns together"]
    story = [row(drifted=names, action="retrain"), row(state="worse", action="page")]
    console = Console(width=80, file=StringIO())

    console.print(replay_table(story, "classification", narrow=True))

    shown = console.file.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "maintained" in shown
    for said in ("carrier ~", "performance", "retrain", "0.500", "0.600"):
        assert said in shown


@pytest.mark.parametrize(
    ("story", "sentences"),
    [
        (
            [row()],
            (
                "1 batch judged, 0 retrains asked for, 1 champion served. "
                "Mean log_loss: 0.5000 maintained, 0.6000 left alone."
            ),
        ),
        (
            [row(action="retrain"), row(causes=["unit (age)"], version=2, maintained={})],
            (
                "2 batches judged, 1 of them broken, 1 retrain asked for, 2 champions served. "
                "Mean log_loss: 0.5000 maintained, 0.6000 left alone."
            ),
        ),
    ],
)
def test_the_closing_line_of_a_replay_counts_what_happened(story, sentences):
    assert closing(story, SHOP) == sentences


def test_a_column_of_any_name_is_shown_as_it_is():
    question = {"causes": ["unit (x [red])", "sign (y)"], "sentences": ["s"], "cures": ["c"]}

    shown = drawn(review_table([question | {"batch": "2026-02-16T00:00"}]))

    assert "unit (x [red])" in shown
    assert "sign (y)" in shown


def test_quarantined_rows_are_shown_with_their_reasons(capsys):
    result = {"rows": 10, "valid": 8, "quarantined": 2, "folder": "/q", "reasons": {"[a] bad": 2}}

    show_validation(result, SHOP)

    shown = capsys.readouterr().out
    assert shown.startswith("10 rows of shop read, 8 valid, 2 quarantined.\n")
    assert "│ [a] bad │    2 │" in shown
    assert shown.endswith("The quarantined rows are in /q.\n")


@pytest.mark.parametrize(
    ("command", "result", "line"),
    [
        ("train", {"version": np.int64(1), "gain": np.nan}, '{"version":1,"gain":null}'),
        ("replay", [{"x": float("inf")}], '{"batches":[{"x":null}]}'),
        ("review", [], '{"waiting":[]}'),
    ],
)
def test_json_is_one_object_without_numbers_that_are_not_finite(command, result, line, capsys):
    print_json(command, result)

    assert capsys.readouterr().out == f"{line}\n"


def test_a_comparison_of_policies_fits_80_columns_and_ends_with_what_to_do(capsys):
    figures = {"loss": 12_123.4, "kept": 0.92, "best": 1.0, "pages": None, "delay": float("nan")}
    names = ("never", "every batch", "performance alone")
    show_backtest(
        {
            "since": "2013-02-26",
            "until": "2013-12-31",
            "loss": "squared_log_error",
            "policies": [{"policy": name, "retrains": 43, **figures} for name in names],
            "sentence": "Retrain when performance is lost.",
            "command": "",
            "settings": {"alpha": 1e-9},
            "applied": False,
        },
        SHOP,
    )

    *table, sentence, settings = capsys.readouterr().out.splitlines()
    assert max(map(len, table)) <= 80
    assert sum("92%" in line for line in table) == 3
    assert sentence == "Retrain when performance is lost."
    assert settings.startswith("Settings of monitoring: alpha: 1e-09. `--apply` writes them into")
