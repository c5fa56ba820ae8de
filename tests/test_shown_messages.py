"""Messages that documents show as examples are those that the code writes."""

import re

import numpy as np
import pandas as pd
import pytest

from docs.documented import FENCE, ROOT
from pipeline.columns import infer_columns, known_categories
from pipeline.config import Categorical
from pipeline.monitoring.drift import compare
from pipeline.monitoring.episode import Evidence, decide
from pipeline.monitoring.slices import SliceLoss
from pipeline.reference import Reference
from pipeline.training import golden, parity
from pipeline.training.model import Model

CARRIERS = (
    *("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL"),
    *("HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"),
)


def shown(page, start):
    """The only block of a page that begins like that, in one line."""
    blocks = [text for _, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8"))]
    (found,) = (text for text in blocks if text.startswith(start))
    return " ".join(found.split())


def reason(**seen):
    return decide(
        Evidence("2026-05-04T00:00", 1, **seen), history=[], attempts=[], cooldown=2
    ).reason


def test_labels_that_came_late_are_called_faulty_as_the_page_shows():
    faulty = ("permuted (won) in batch 2026-04-27T00:00",)

    assert reason(labels=faulty) == shown("docs/performance.md", "Performance was lost")


def test_the_worst_slice_ends_a_decision_as_the_page_shows():
    one = SliceLoss("carrier = HA", 612, 0.4, 0.48, 0.21, worse=True, parts=(), counts=())

    said = reason(worse="2026-05-04T00:00", worst_slice=one.sentence)

    assert said.endswith(f" {shown('docs/performance.md', 'Worst slice')}")


def test_degrees_in_another_unit_are_named_as_the_readme_shows():
    random = np.random.default_rng(0)
    before = pd.DataFrame({"temp": random.normal(60, 15, 4_000)})
    batch = pd.DataFrame({"temp": (random.normal(60, 15, 1_000) - 32) / 1.8})
    reference = Reference.fit(before, infer_columns(before), block=400, seed=0)

    (cause,) = compare(reference=reference, current=batch).causes

    said = f"{cause.sentence} {cause.cure}"
    assert fitted(said) == fitted(shown("README.md", "'temp' looks"))


def fitted(sentence):
    """A sentence without how well the rows fit, which those of the README do by other figures."""
    return re.sub(r"R2 [\d.]+", "R2 ...", sentence)


class ReadsCategoriesWrong(Model):
    """A model in an environment that moves two carriers, where these come as categories."""

    def encode(self, rows):
        encoded = super().encode(rows)
        if isinstance(rows["carrier"].dtype, pd.CategoricalDtype):
            encoded[rows["carrier"].isin(["UA", "VX"]), 0] += 1
        return encoded


def test_a_refused_version_is_explained_as_the_page_shows(monkeypatch):
    columns = {"carrier": Categorical(values=CARRIERS)}
    rows = pd.DataFrame({"carrier": ["UA", "VX", "UA", "VX", "AA"]})
    versions = {"numpy": "2.4.6", "pandas": "3.1.0"}
    monkeypatch.setattr(golden, "installed", lambda: versions)
    model = ReadsCategoriesWrong("regression", columns, known_categories(rows, columns), None)
    before = golden.Golden(rows, model.encode(rows), np.zeros(5), versions | {"pandas": "3.0.1"})

    with pytest.raises(parity.ParityError) as refused:
        parity.replay(model, before)

    assert str(refused.value) == shown("docs/environment.md", "The model encodes")
