from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import RegistryError
from pipeline.reference import Reference
from pipeline.reference.serialised import reference_to_dict
from pipeline.training import parity
from pipeline.training.bundle import Bundle
from pipeline.training.predictions import BASELINE, PREDICTION, ROW_LOSS, halves_of

FILES = [
    "manifest.json",
    "reference.json",
    "heldout.parquet",
    "model/model.json",
    "model/estimator.ubj",
    "golden/golden.parquet",
    "golden/expected.parquet",
    "holdout/expected.parquet",
]


@pytest.fixture
def bundle(rows, data, model, fit):
    beside = {PREDICTION: 0.4, BASELINE: 0.5, ROW_LOSS: 0.7}
    heldout = rows[["id", "at", "churned"]].tail(50).assign(**beside)
    return Bundle(
        model=model,
        golden=parity.make(model, rows, n=8),
        reference=Reference.fit(rows, data.features, time="at", block="7D"),
        heldout=heldout.reset_index(drop=True),
        manifest={"name": "churn", "until": "2026-02-20"},
        halves=(fit(n_estimators=3), fit(n_estimators=4)),
        baseline={"cap": None, "parts": {"block": [0], "loss": [1.5], "rows": [3]}},
        holdout=parity.held_out(model, rows.tail(50)),
    )


@pytest.fixture
def folder(tmp_path, bundle, rows, data):
    bundle.save(tmp_path / "bundle", sample=rows[list(data.features)].head(20))
    return tmp_path / "bundle"


def test_held_out_rows_of_before_get_the_names_of_now(folder, bundle):
    former = {PREDICTION: "prediction", BASELINE: "baseline", ROW_LOSS: "loss"}
    bundle.heldout.rename(columns=former).to_parquet(folder / "heldout.parquet")

    pd.testing.assert_frame_equal(Bundle.load(folder).heldout, bundle.heldout)


def test_a_bundle_comes_back_as_it_was_saved(folder, bundle, rows):
    loaded = Bundle.load(folder)

    np.testing.assert_allclose(loaded.model.predict(rows), bundle.model.predict(rows))
    assert reference_to_dict(loaded.reference) == reference_to_dict(bundle.reference)
    assert loaded.manifest == bundle.manifest
    pd.testing.assert_frame_equal(loaded.heldout, bundle.heldout)
    assert loaded.baseline == bundle.baseline
    pd.testing.assert_frame_equal(loaded.holdout.rows, bundle.holdout.rows)
    for half, saved in zip(loaded.halves, bundle.halves, strict=True):
        np.testing.assert_allclose(half.predict(rows), saved.predict(rows))


def test_rows_are_compared_by_the_half_fits_that_predicted_the_reference(bundle, rows):
    predictions = bundle.predict_as_reference(rows, rows["id"])

    one, other = (half.predict(rows) for half in bundle.halves)
    drawn = halves_of(rows["id"])
    np.testing.assert_array_equal(predictions, np.where(drawn == 0, one, other))


def test_a_bundle_without_half_fits_compares_predictions_of_its_model(bundle, rows):
    predictions = replace(bundle, halves=()).predict_as_reference(rows, rows["id"])

    np.testing.assert_array_equal(predictions, bundle.model.predict(rows))


def test_the_sample_is_saved_with_the_bundle(folder, rows, data):
    sample = pd.read_parquet(folder / "sample.parquet")

    pd.testing.assert_frame_equal(sample, rows[list(data.features)].head(20))


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_refused_in_one_sentence(folder, file):
    (folder / file).unlink()

    with pytest.raises(RegistryError, match=r"is damaged or incomplete \(.*\)\. .*again\.$"):
        Bundle.load(folder)


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_refused_in_one_line(folder, file):
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(
        RegistryError, match=r"is damaged or incomplete \(.*\)\. .*again\.$"
    ) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": 1, "columns": [], "blocks": []}', "null"])
def test_a_reference_of_another_shape_is_refused(folder, text):
    (folder / "reference.json").write_text(text)

    with pytest.raises(RegistryError, match="is damaged or incomplete"):
        Bundle.load(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="is damaged or incomplete"):
        Bundle.load(tmp_path / "nowhere")


def test_a_model_that_predicts_differently_than_at_training_is_refused(folder, fit):
    fit(n_estimators=3).save(folder / "model")

    with pytest.raises(RegistryError, match=r"predicts \d+ of \d+ golden rows differently"):
        Bundle.load(folder)
