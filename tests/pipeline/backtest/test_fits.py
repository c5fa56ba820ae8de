import numpy as np
import pandas as pd
import pytest

from pipeline.backtest import fits
from pipeline.backtest.fits import Fit, Span
from pipeline.config import Settings
from pipeline.training.metrics import losses

SPAN = Span(pd.Timestamp("2026-01-29"), pd.Timedelta("7D"), 3)


@pytest.fixture(scope="module")
def settings(data):
    values = {
        "name": "shop",
        "task": "classification",
        "data": data.model_dump() | {"label_delay": "3D"},
        "training": {"params": {"n_estimators": 5, "max_depth": 2, "n_jobs": 1}},
    }
    return Settings.model_validate(values)


@pytest.fixture
def folder(tmp_path, rows):
    fits.keep(tmp_path, rows, rows)
    return tmp_path


def lost(folder, settings, *wanted):
    said = []
    fits.lost(folder, settings, SPAN, wanted, lambda: said.append(1))
    assert len(said) == len(wanted)
    return [fits.read_losses(folder, fit) for fit in wanted]


def test_a_fit_is_on_labels_that_are_known_and_its_losses_are_of_later_batches(
    folder, settings, rows, fit
):
    (found,) = lost(folder, settings, Fit(1))

    known = rows[rows["at"] + pd.Timedelta("3D") <= SPAN.begin(1)]
    model = fit(n_estimators=5, max_depth=2, n_jobs=1)
    model.estimator.fit(model.encode(known), known["churned"])
    batch = rows[rows["at"].between(SPAN.begin(2), SPAN.begin(3), inclusive="left")]
    expected = losses("log_loss", batch["churned"].to_numpy(), model.predict(batch)).mean()
    assert np.isnan(found[0])
    assert found[2] == pytest.approx(expected)


def test_rows_of_batches_that_were_set_aside_are_in_no_fit(folder, settings):
    whole, without = lost(folder, settings, Fit(2), Fit(2, (0, 1)))
    (first,) = lost(folder, settings, Fit(0))

    assert whole[2] != without[2]
    # Without the two batches before, the rows are those before the first batch whose labels came.
    assert np.isfinite(without[2])
    assert np.isfinite(first[2])


def test_what_is_kept_is_not_fitted_again(folder, settings):
    lost(folder, settings, Fit(0))
    file = folder / "fits" / "0.json"
    file.write_text("[1, 2, 3]")

    (again,) = lost(folder, settings, Fit(0))

    assert again.tolist() == [1, 2, 3]


def test_batches_count_rows_with_a_label(settings, frame):
    frame.loc[frame["at"] >= SPAN.begin(2), "churned"] = np.nan

    assert fits.rows_of_batches(frame, settings, SPAN).tolist() == [84, 84, 0]


def test_other_rows_settings_or_code_have_another_key(settings, rows):
    changed = settings.model_copy(
        update={"training": settings.training.model_copy(update={"seed": 1})}
    )
    known = fits.key_of(settings, [rows], judging="now")
    others = {
        fits.key_of(settings, [rows[:-1]], judging="now"),
        fits.key_of(changed, [rows], judging="now"),
        fits.key_of(settings, [rows], judging="upgraded"),
    }

    assert len(others | {known}) == 4
    assert fits.key_of(settings, [rows.copy()], judging="now") == known
