from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import conform
from pipeline.config import Categorical, Numeric
from pipeline.errors import RegistryError
from pipeline.training.compatibility import LOADING, compatibility_of
from pipeline.training.golden import Golden
from pipeline.training.model import Model
from pipeline.training.parity import UNSEEN, ParityError, held_out, make, replay

DIFFERS = {
    "plan": r"at training, in plan \(\d+ rows\)\..* is the encoding: .*'free' was 0 and is 2",
    "age": r"differently than at training, in age .*missing values: .*age 0\.0 was nan and is 0",
}
"""What a refusal says: columns and rows, the first stage that differs, and values."""


@pytest.fixture(scope="module")
def golden(rows, model):
    return make(model, rows, n=16)


def test_exactly_the_nullable_columns_hold_a_null(golden, model):
    nullable = [name for name, column in model.columns.items() if column.nullable]

    assert [name for name in golden.rows if golden.rows[name].isna().any()] == nullable
    assert golden.rows[nullable].isna().all(axis=1).any()


def test_golden_rows_hold_every_label_and_an_unseen_one_where_allowed(golden, model):
    assert set(golden.rows["plan"]) == {"free", "pro", "team"}
    assert set(golden.rows["city"].dropna()) == {*model.categories["city"], UNSEEN}


def test_golden_rows_hold_the_extremes_of_rows_and_declaration(golden, rows):
    assert {0, 100, rows["amount"].min(), rows["amount"].max()} <= set(golden.rows["amount"])
    assert {rows["age"].min(), rows["age"].max()} <= set(golden.rows["age"])


@pytest.mark.parametrize(
    ("path", "task"),
    [
        ("xgboost.XGBClassifier", "classification"),
        ("xgboost.XGBRegressor", "regression"),
        ("sklearn.linear_model.LogisticRegression", "classification"),
        ("sklearn.ensemble.HistGradientBoostingRegressor", "regression"),
    ],
)
def test_an_unchanged_model_replays_without_an_error(tmp_path, rows, fit, path, task):
    model = fit(path, task)
    model.save(tmp_path)
    make(model, rows).save(tmp_path)

    replay(Model.load(tmp_path), Golden.load(tmp_path))


@pytest.mark.parametrize("classes", [0, 3])
def test_exported_golden_rows_are_those_that_were_saved(tmp_path, golden, classes):
    thirds = np.tile(golden.predictions[:, None] / 3, (1, classes))
    saved = replace(golden, predictions=thirds if classes else golden.predictions)
    saved.save(tmp_path / "saved")
    saved.export(tmp_path / "exported")

    before, after = Golden.load(tmp_path / "saved"), Golden.load(tmp_path / "exported")

    pd.testing.assert_frame_equal(after.rows, before.rows, check_exact=True)
    np.testing.assert_array_equal(after.encoded, before.encoded)
    np.testing.assert_array_equal(after.predictions, before.predictions)
    assert after.packages == before.packages
    assert [file.name for file in (tmp_path / "exported").iterdir()] == ["golden.json"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"float64": {"x": [1]}}'])
def test_damaged_exported_rows_are_refused(tmp_path, golden, damage):
    golden.export(tmp_path)
    (tmp_path / "golden.json").write_bytes(damage)

    with pytest.raises(RegistryError, match=r"golden batch in .* is damaged or incomplete"):
        Golden.load(tmp_path)


def test_reordered_labels_are_refused_with_the_name_of_their_column(golden, model):
    turned = model.categories | {"plan": ["team", "pro", "free"]}

    with pytest.raises(RegistryError, match=DIFFERS["plan"]):
        replay(replace(model, categories=turned), golden)


def test_a_lost_null_is_refused(golden, model):
    filled = replace(golden, rows=golden.rows.assign(age=golden.rows["age"].fillna(0)))

    with pytest.raises(RegistryError, match=DIFFERS["age"]):
        replay(model, filled)


def test_a_time_shifted_by_an_hour_is_refused(fit, rows):
    columns = {"at": Numeric(), "amount": Numeric()}
    model = fit(columns=columns, n_estimators=5)
    golden = make(model, rows)

    with pytest.raises(RegistryError, match="differently than at training, in at"):
        replay(model, replace(golden, rows=golden.rows.assign(at=golden.rows["at"] + 3600)))


def test_another_estimator_is_refused_with_how_much_differs(golden, model, fit):
    other = fit(n_estimators=11, max_depth=3)

    with pytest.raises(RegistryError, match=r"predicts \d+ of \d+ golden rows .* by up to 0\.\d+"):
        replay(replace(model, estimator=other.estimator), golden)


def test_predictions_of_nan_are_refused(golden, model):
    broken = replace(golden, predictions=np.full(len(golden.rows), np.nan))

    with pytest.raises(RegistryError, match="golden rows differently"):
        replay(model, broken)


def test_another_order_of_columns_is_refused(golden, model):
    turned = dict(reversed(model.columns.items()))

    with pytest.raises(RegistryError, match="has other columns than its golden rows"):
        replay(replace(model, columns=turned), golden)


def test_float32_rounding_is_tolerated(golden, model):
    rounded = golden.encoded.astype("float32").astype("float64")

    replay(model, replace(golden, encoded=rounded))


def test_a_feature_may_be_called_prediction(tmp_path, rows, fit):
    columns = {"prediction": Numeric(), "city": Categorical(nullable=True)}
    frame = rows.rename(columns={"amount": "prediction"})
    model = fit(columns={"amount": Numeric(), "city": columns["city"]}, n_estimators=5)
    model = replace(model, columns=columns)
    make(model, frame).save(tmp_path)

    replay(model, Golden.load(tmp_path))


@dataclass(frozen=True)
class OtherPandas(Model):
    """A model as under a pandas that reads one type of columns otherwise than before."""

    kind: str = "object"
    column: str = "city"

    def encode(self, frame):
        matrix = super().encode(frame)
        if str(frame[self.column].dtype) == self.kind:
            matrix[:, list(self.columns).index(self.column)] += 1
        return matrix


@pytest.mark.parametrize(
    ("kind", "said", "column"),
    [
        ("object", "object", "amount"),
        ("category", "category", "city"),
        ("string", "string", "city"),
        ("double[pyarrow]", "Arrow", "amount"),
    ],
)
def test_a_type_that_is_read_differently_is_named(golden, model, kind, said, column):
    other = OtherPandas(**vars(model), kind=kind, column=column)

    with pytest.raises(RegistryError, match=f"in {column} .* columns of the type {said}: "):
        replay(other, golden)


def refused(model, golden):
    with pytest.raises(ParityError) as raised:
        replay(model, golden)
    return raised.value.stage, raised.value.columns


@dataclass(frozen=True)
class Changed(Model):
    """A model in an environment that changes the encoded matrix."""

    change: Callable = lambda _frame, matrix: matrix

    def encode(self, frame):
        return self.change(frame, super().encode(frame))


def swapped(_frame, matrix):
    return matrix[:, [1, 0, *range(2, matrix.shape[1])]]


def forgotten(frame, matrix):
    """Oslo is not known any more, as if it were spelled otherwise; nulls were NaN before."""
    matrix[
        (frame["city"] == "Oslo").fillna(False).to_numpy(dtype=bool), list(frame).index("city")
    ] = np.nan
    return matrix


@pytest.mark.parametrize(
    ("change", "stage", "columns"),
    [
        (swapped, "the order of columns", ("amount", "age")),
        (forgotten, "the encoding", ("city",)),
    ],
)
def test_what_happened_to_an_encoded_matrix_is_named(golden, model, change, stage, columns):
    assert refused(Changed(**vars(model), change=change), golden) == (stage, columns)


def test_rounding_that_changes_a_prediction_is_refused_with_its_column(fit, rows):
    serial = 1e8 + 10 * rows["amount"] / 100
    frame = rows.assign(age=serial)
    columns = {"amount": Numeric(), "age": Numeric()}
    model = replace(fit("sklearn.linear_model.LinearRegression", "regression", columns))
    model.estimator.fit(model.encode(frame), rows["spend"])
    rounded = Changed(**vars(model), change=lambda _, matrix: matrix.astype("f4").astype("f8"))

    assert refused(rounded, make(model, frame)) == ("the rounding of numbers", ("age",))


@pytest.mark.parametrize(
    ("kind", "column", "said"),
    [("M", "amount", "time"), ("m", "amount", "length of time"), ("f", "plan", "number")],
)
def test_whole_numbers_are_read_as_times_and_codes_as_numbers(fit, rows, kind, column, said):
    frame = rows.assign(
        amount=rows["amount"].round(),
        plan=rows["plan"].map({"free": "1", "pro": "2", "team": "10"}),
    )
    columns = {"amount": Numeric(nullable=True), "plan": Categorical(values=("1", "2", "10"))}
    model = fit(columns={"amount": Numeric(nullable=True), "plan": Categorical()}, n_estimators=5)
    model = replace(model, columns=columns, categories={"plan": ["1", "10", "2"]})

    def change(came, matrix):
        if came[column].dtype.kind == kind:
            matrix[:, list(came).index(column)] += 1
        return matrix

    golden = make(model, frame)

    assert replay(model, golden).equal
    stage = f"the reading of columns of the type {said}"
    assert refused(Changed(**vars(model), change=change), golden) == (stage, (column,))


@dataclass(frozen=True)
class Imputed(Model):
    """A model of which missing values are handled otherwise than at training."""

    fails: bool = False

    def predict_encoded(self, matrix):
        if self.fails and np.isnan(matrix[:, 1]).any():
            message = "Input contains NaN."
            raise ValueError(message)
        matrix = matrix.copy()
        matrix[np.isnan(matrix[:, 1]), 1] = 500
        return super().predict_encoded(matrix)


@pytest.mark.parametrize("fails", [False, True])
def test_missing_values_that_a_model_handles_otherwise_are_named(golden, model, fails):
    stage = "how the model handles missing values of age"

    assert refused(Imputed(**vars(model), fails=fails), golden) == (stage, ("age",))


def test_a_model_that_fails_on_all_rows_is_refused_with_its_words(golden, model):
    nothing = replace(model, estimator=None)

    with pytest.raises(
        ParityError, match=r"does not predict .*NoneType.* the model itself"
    ) as raised:
        replay(nothing, golden)

    assert raised.value.columns == ()


def test_a_stored_version_is_compatible_with_these_packages_or_the_reason_is_named(
    tmp_path, golden, model
):
    model.save(tmp_path / "model")
    golden.save(tmp_path / "golden")
    same = compatibility_of(tmp_path)
    replace(golden, predictions=np.nextafter(golden.predictions, 1)).save(tmp_path / "golden")
    nearly = compatibility_of(tmp_path)
    replace(golden, predictions=golden.predictions + 0.1).save(tmp_path / "golden")
    other = compatibility_of(tmp_path)
    (tmp_path / "model" / "model.json").unlink()

    assert (same.verdict, nearly.verdict) == ("equal", "within tolerance")
    assert (other.verdict, other.stage) == ("different", "the model itself")
    assert compatibility_of(tmp_path).stage == LOADING


def test_whole_numbers_that_no_integer_holds_are_golden(fit, rows):
    model = fit(columns={"amount": Numeric()}, n_estimators=2)

    golden = make(model, rows.assign(amount=np.where(rows["amount"] > 50, 1e300, 2.0**63)))

    assert replay(model, golden).equal


def test_packages_that_changed_are_named(golden, model, fit, tmp_path):
    replace(golden, packages=golden.packages | {"pandas": "2.0.0"}).save(tmp_path)
    stored, other = Golden.load(tmp_path), fit(n_estimators=11, max_depth=3)

    assert replay(model, stored).changed == (f"pandas 2.0.0 to {pd.__version__}",)
    with pytest.raises(RegistryError, match=r"Since training changed pandas 2\.0\.0 to 3"):
        replay(replace(model, estimator=other.estimator), stored)


def test_predictions_are_equal_to_the_bit_or_within_the_tolerance(golden, model):
    nearly = np.nextafter(golden.predictions, 1)

    assert replay(model, golden).equal
    assert not replay(model, replace(golden, predictions=nearly)).equal


@pytest.mark.parametrize("name", ["golden.parquet", "expected.parquet", "packages.json"])
def test_a_half_written_golden_batch_is_refused(tmp_path, golden, name):
    golden.save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])

    with pytest.raises(RegistryError, match="is damaged or incomplete"):
        Golden.load(tmp_path)


def test_values_of_a_private_number_are_never_stored(rows, data, fit):
    columns = data.features | {"age": Numeric(nullable=True, private=True)}
    model = fit(columns=columns, n_estimators=5)

    stored = make(model, rows).rows["age"].dropna()

    assert len(stored) > 0
    assert not set(stored) & set(rows["age"])
    assert stored.max() < rows["age"].max()


def test_a_private_label_is_not_stored_with_its_row(rows, data, fit):
    columns = data.features | {"city": Categorical(private=True, nullable=True)}
    known = rows.assign(city=rows["id"])
    model = fit(columns=columns, n_estimators=5)
    model = replace(model, categories=model.categories | {"city": sorted(known["id"])})

    stored = make(model, known).rows.head(64)

    whole = conform(known, columns)
    both = stored.merge(whole, on=["amount", "city"])
    assert len(both) <= 3


@pytest.mark.parametrize("private", [False, True])
def test_a_golden_batch_can_be_made_of_columns_without_values(rows, data, fit, private):
    columns = data.features | {
        "age": Numeric(nullable=True, private=private),
        "city": Categorical(nullable=True, private=private),
    }
    model = fit(columns=columns, n_estimators=5)

    model = replace(model, categories=model.categories | {"city": []})
    golden = make(model, rows.assign(age=np.nan, city=None), n=4)

    replay(model, golden)


def test_a_golden_batch_can_be_made_of_one_row(rows, model):
    golden = make(model, rows[5:6])

    assert not pd.isna(golden.predictions).any()
    replay(model, golden)


def test_held_out_rows_that_a_model_predicts_otherwise_are_named(rows, fit):
    kept = held_out(fit(n_estimators=9), rows.tail(50))

    assert len(kept.rows) == 50
    with pytest.raises(RegistryError, match=r"predicts \d+ of 50 held-out rows differently"):
        replay(fit(n_estimators=2), kept, "held-out")


def test_held_out_rows_with_a_private_column_are_not_kept(rows, data, fit):
    model = fit()
    private = {
        name: column.model_copy(update={"private": True}) for name, column in data.features.items()
    }

    assert held_out(replace(model, columns=private), rows) is None
