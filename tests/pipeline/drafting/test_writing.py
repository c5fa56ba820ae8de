import pytest
import yaml

from pipeline.config import Settings, SqlSource
from pipeline.drafting.writing import text_of

AWKWARD = ["a: b", "no", "#x", "y, z", "x\ny", "{x}", "ü", "12", "- x", "'q'", 'q"', "a" * 60]


def loaded(tmp_path, draft):
    path = tmp_path / "shop.yaml"
    path.write_text(text_of(draft, "shop", "rows of a shop"), encoding="utf-8")
    return Settings.load(path)


@pytest.mark.parametrize("csv", [False, True])
def test_the_file_says_what_was_drafted(orders, drafted, tmp_path, csv):
    draft = drafted(orders, csv=csv)

    settings = loaded(tmp_path, draft)

    assert settings.data == draft.data
    assert settings.task == draft.target.task
    assert settings.monitoring.batch == draft.plan.batch
    assert settings.training.until == draft.plan.until
    assert settings.training.holdout == draft.plan.holdout
    assert settings.training.estimator == draft.estimator[0]


def test_a_table_without_time_and_key_is_written(orders, drafted, tmp_path):
    draft = drafted(orders.drop(columns="ordered_at").sort_values("returned"))

    assert loaded(tmp_path, draft).data == draft.data


def test_names_and_labels_that_yaml_takes_for_something_else_are_quoted(orders, drafted, tmp_path):
    rows = orders.rename(columns={"amount": "a: b", "visits": "no"})
    rows["#x"] = [AWKWARD[i % len(AWKWARD)] for i in range(len(rows))]
    draft = drafted(rows.assign(returned=rows["returned"].map({0: "no", 1: "yes"})))

    assert loaded(tmp_path, draft).data == draft.data


def test_every_feature_has_a_comment(orders, drafted):
    text = text_of(drafted(orders), "shop", "rows of a shop")

    lines = text.partition("features:")[2].partition("\n\n")[0].strip().splitlines()
    assert len(lines) == 3
    assert all("  # seen: " in line or " labels: " in line for line in lines)


def test_a_query_of_several_lines_stays_readable(orders, drafted):
    draft = drafted(orders)
    query = "SELECT *\nFROM orders -- all: of them"
    values = vars(draft) | {"source": SqlSource(kind="sql", url="sqlite:///x.db", query=query)}
    text = text_of(type(draft)(**values), "shop", "sqlite:///x.db")

    assert yaml.safe_load(text)["data"]["train"]["query"] == query
    assert "\n      FROM orders -- all: of them\n" in text
