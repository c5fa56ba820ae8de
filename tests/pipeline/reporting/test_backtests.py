from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd

from pipeline.backtest.fits import Span
from pipeline.reporting.backtests import backtest_note, picture

SPAN = Span(pd.Timestamp("2026-01-05"), pd.Timedelta("7D"), 4)
ROWS = np.array([10.0, 10, 0, 20])


def drawn(**losses):
    svg = picture({name: np.array(one) for name, one in losses.items()}, ROWS, SPAN)
    return ET.fromstring(svg)  # noqa: S314 -- our own


def texts(image):
    return [one.text for one in image.iter() if one.tag.endswith("text")]


def test_each_policy_has_a_line_that_ends_at_its_change_of_the_mean_loss():
    image = drawn(never=[1, 1, np.nan, 1], configured=[1, 1, np.nan, 0.5])

    assert {"never +0.0%", "configured -25.0%"} <= {*texts(image)}
    assert {"2026-01-05", "2026-02-02"} <= {*texts(image)}
    lines = [one for one in image.iter() if one.tag.endswith("polyline")]
    assert len(lines[0].attrib["points"].split()) == 3  # the batch without labels is left out


def test_policies_that_are_all_alike_can_be_drawn():
    assert "never +0.0%" in texts(drawn(never=[1, 1, 1, 1]))


def test_the_note_begins_with_the_sentence_and_has_a_row_for_each_policy():
    one = {"loss": 0.5, "kept": 0.9, "best": 1.0, "retrains": 3, "pages": None, "delay": 1.5}
    note = backtest_note(
        {
            "sentence": "Retrain as configured.",
            "loss": "log_loss",
            "since": "2026-01-05",
            "until": "2026-02-02",
            "batches": 4,
            "labelled": 3,
            "set_aside": ["2026-01-12T00:00"],
            "cost": 0.1,
            "command": "",
            "policies": [{"policy": "as configured", **one}],
        }
    )

    assert note.startswith("**Retrain as configured.**")
    assert "| as configured | 0.5 | 90% | 100% | 3 |  | 1.5 |" in note
    assert "set 1 of them aside" in note
