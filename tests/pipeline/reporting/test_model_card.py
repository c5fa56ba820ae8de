import json

import numpy as np
import pytest

from pipeline.config import Training
from pipeline.reporting.model_card import loading_code, model_card
from pipeline.training.evaluation import evaluation
from pipeline.training.fitting import train

ODD = "<img src=x onerror=alert(1)>\"'&\u202e"
TAGS = {
    "since": "2026-01-01 00:00",
    "until": "2026-02-20 00:00",
    "git_commit": "0123abcd",
    "lock_sha256": "feed",
    "packages": json.dumps({"numpy": "2.3.1"}),
}
GATE = {
    "promoted": True,
    "reason": "The gain over the champion is +3.00%, at least +1.00%.",
    "rows": 300,
    "gains": [
        {"over": "baseline", "mean": 0.2, "low": 0.1, "high": 0.3},
        {"over": "champion", "mean": 0.03, "low": 0.01, "high": 0.05},
    ],
    "slices": [{"over": "champion where plan = pro", "mean": -0.01, "low": -0.1, "high": 0.1}],
    "expected": 0.015,
}
FITS = {
    "classification": ("churned", "xgboost.XGBClassifier"),
    "regression": ("spend", "xgboost.XGBRegressor"),
}


@pytest.fixture(scope="module", params=FITS)
def record(request, rows, data):
    """What training says of a model of either task."""
    target, estimator = FITS[request.param]
    data = data.model_copy(update={"target": target})
    training = Training(estimator=estimator, params={"n_estimators": 8}, holdout="10D")
    trained = train(rows, data, training, task=request.param)
    found = evaluation(trained, data, task=request.param, ranges={"amount": [0.5, 99.5]})
    return json.loads(json.dumps(found)) | {"golden": 77}


def card(record, *, gate=GATE, tags=TAGS, **changes):
    named = {"model": "shop", "conf": "conf/shop.yaml", "number_of": 3} | changes
    parameters = {"estimator": "xgboost.XGBClassifier", "n_estimators": "8"}
    address = "http://127.0.0.1:5000"
    return model_card(
        record, **named, tags=tags, parameters=parameters, tracking=address, gate=gate
    )


def test_a_card_says_what_it_was_trained_on_how_good_it_is_and_how_to_load_it(record, read_page):
    page = read_page(text := card(record))

    assert page.heading() == "shop, version 3. It passed the gate."
    assert GATE["reason"] in page.words
    assert "the champion of then +3.00% +1.00% +5.00%" in page.words
    assert "Promised in service: +1.50%" in page.words
    assert "77 golden rows" in page.words
    assert "0.5 to 99.5" in page.words
    assert "models:/shop/3" in page.words
    assert len(text) < 100_000


def test_every_metric_has_its_interval_and_the_baseline_beside_it(record, read_page):
    page = read_page(card(record))

    for one in record["metrics"]:
        assert one["name"] in page.of("th")
        assert one["ends"][0] <= one["value"] <= one["ends"][1]
        assert one["baseline"] is not None


def test_each_task_has_its_pictures(record, read_page):
    titles = " ".join(read_page(card(record)).of("figcaption"))

    if record["task"] == "regression":
        assert "Residuals" in titles
        assert "Actual mean against the prediction" in titles
    else:
        assert "ROC" in titles
        assert "Precision against recall" in titles
        assert "Calibration" in titles
        assert "Predicted chances" in titles


def test_a_task_without_pictures_of_its_own_has_a_card(record, read_page):
    page = read_page(card(record | {"figures": {}}))

    assert "Held-out rows" not in page.of("h2")
    assert "Performance" in page.of("h2")


def test_each_class_of_several_has_its_recall_and_precision(record, read_page):
    classes = [
        {"label": "a", "share": 0.7, "recall": 0.9, "precision": 0.8},
        {"label": ODD, "share": 0.3, "recall": 0.5, "precision": None},
    ]

    words = read_page(card(record | {"classes": classes})).words

    assert "a 70% 90% 80%" in words
    assert "30% 50% unknown" in words


def test_a_model_of_three_classes_has_a_card(claims, claims_data, read_page):
    training = Training(params={"n_estimators": 3}, holdout="10D")
    trained = train(claims, claims_data, training, task="classification")
    found = evaluation(trained, claims_data, task="classification", ranges={})

    page = read_page(card(json.loads(json.dumps(found)) | {"golden": 7}))

    assert {*trained.model.classes} <= {*page.of("th")}
    assert all(one["ends"] for one in found["metrics"])


def test_pictures_of_importance_say_its_numbers(record, read_page):
    loss = next(one["value"] for one in record["metrics"] if one["name"] == record["loss"])
    most = record["importance"][0]

    (said,) = [
        label
        for label in read_page(card(record)).labels()
        if label.startswith(f"{most['column']}:")
    ]

    rise, low, high = (value / loss for value in (most["added"], *most["ends"]))
    expected = [f"{rise:.0%}", f"{low:.0%}", f"{high:.0%}"]
    shown = said.split(": ")[1].replace("from ", "").replace(" to ", ", ").split(", ")
    for got, value in zip(shown, expected, strict=True):
        assert float(got.strip("<%")) == pytest.approx(float(value.strip("%")), abs=0.6)


def test_a_version_that_was_not_judged_yet_has_a_card(record, read_page):
    page = read_page(card(record, gate=None))

    assert page.heading() == "shop, version 3. The gate has not judged yet."
    shadow = read_page(card(record, gate=None, tags=TAGS | {"shadow": "3"}))
    assert "It scores 3 live batches first." in shadow.heading()


def test_a_refused_version_is_called_refused(record, read_page):
    gate = GATE | {"promoted": False, "gains": [], "reason": "Too few rows."}

    page = read_page(card(record, gate=gate))

    assert page.heading() == "shop, version 3. The gate refused it."
    assert page.words.count("Too few rows.") == 2


def test_words_of_the_data_are_escaped(record, read_page):
    columns = [record["columns"][2] | {"name": ODD, "labels": [ODD]}]
    importance = [{"column": ODD, "added": 0.1, "ends": [0.0, 0.2]}]
    odd = record | {"columns": columns, "importance": importance, "target": ODD}

    text = card(odd, model=ODD, conf=ODD, tags=TAGS | {"episode": ODD}, gate=GATE | {"reason": ODD})
    read_page(text)

    assert "<img" not in text
    assert "\u202e" not in text


def test_a_metric_that_is_undefined_is_called_unknown(record, read_page):
    metrics = [{"name": "roc_auc", "value": None, "ends": None, "baseline": None}]

    assert "unknown" in read_page(card(record | {"metrics": metrics})).words


def test_many_columns_are_folded(record, read_page):
    many = [record["columns"][0] | {"name": f"column {i}"} for i in range(200)]
    importance = [record["importance"][0] | {"column": one["name"]} for one in many]

    text = card(record | {"columns": many, "importance": importance})

    assert read_page(text).words.count("180 more columns") == 2
    assert len(text) < 300_000


def test_the_lines_that_load_a_version_are_python():
    code = loading_code("it's", 3, "sqlite:///state/mlflow.db")

    compile(code, "card", "exec")
    assert len(code.splitlines()) == 3


def test_undefined_numbers_of_a_training_become_none(record):
    assert not any(np.isnan(value) for value in numbers(record))


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, float) else []
