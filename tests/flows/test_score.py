"""Rows that are predicted at once, into a file."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from flows.score import score
from flows.steps import opened
from pipeline.data import tables
from pipeline.errors import ConfigError, DataError

pytestmark = pytest.mark.integration
SINCE = {"start": "2026-02-16", "end": "2026-02-23"}


@pytest.fixture
def live(tmp_path):
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    return rows[(rows["at"] >= SINCE["start"]) & (rows["at"] < SINCE["end"])]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_each_valid_row_of_a_window_is_predicted_as_its_model_predicts_it(
    trained, tmp_path, live, ending
):
    output = tmp_path / f"scores.{ending}"

    result = score(trained, str(output), **SINCE)

    found = pd.read_csv(output) if ending == "csv" else pd.read_parquet(output)
    _, registry = opened(trained)
    model = registry.bundle(1).model
    assert list(found.columns) == ["id", "at", "prediction", "version"]
    assert list(found["id"]) == list(live["id"])
    np.testing.assert_array_equal(found["prediction"], model.predict(live))
    assert set(found["version"]) == {1}
    assert result == {
        "output": str(output),
        "version": 1,
        "rows": 336,
        "predicted": 336,
        "quarantined": 0,
        "reasons": {},
    }


def test_a_file_of_rows_is_scored_and_bad_rows_are_kept_with_their_reason(trained, tmp_path, live):
    rows = live.drop(columns="churned").head(10)
    rows.assign(plan=["gold", *rows["plan"][1:]]).to_csv(tmp_path / "more.csv", index=False)

    result = score(trained, str(tmp_path / "scores.csv"), rows=str(tmp_path / "more.csv"))

    kept = pd.read_parquet(tmp_path / "state" / "quarantine" / "shop" / "score scores.parquet")
    assert (result["rows"], result["predicted"], result["quarantined"]) == (10, 9, 1)
    assert list(kept["quarantine_reason"]) == ["plan must be one of {free, pro}"]
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 9


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_file_does_not_depend_on_the_size_of_the_parts(
    trained, tmp_path, live, monkeypatch, ending
):
    rows = pd.concat([live.drop(columns="churned").head(20), live.head(25).tail(10)])
    rows.loc[rows.index[3], "plan"] = "gold"
    rows.assign(more=["x", *[1] * 29]).to_csv(tmp_path / "rows.csv", index=False)
    kept = tmp_path / "state" / "quarantine" / "shop" / "score scores.parquet"
    output, found = tmp_path / f"scores.{ending}", []

    for size in (1, 7, 1_000):
        monkeypatch.setitem(tables.read_parts.__kwdefaults__, "size", size)
        given = {"rows": str(tmp_path / "rows.csv"), "explain": True}
        result = score(trained, str(output), **given)
        whole = pd.read_csv(output) if ending == "csv" else pd.read_parquet(output)
        found.append((result, whole, pd.read_parquet(kept)))

    assert (found[0][0]["rows"], found[0][0]["quarantined"]) == (30, 6)
    for result, whole, refused in found[1:]:
        assert result == found[0][0]
        pd.testing.assert_frame_equal(whole, found[0][1], check_exact=True)
        pd.testing.assert_frame_equal(refused, found[0][2])


def test_an_error_in_a_late_part_leaves_the_old_file_and_no_half_of_a_new_one(
    trained, tmp_path, live, monkeypatch
):
    output, text = tmp_path / "scores.csv", live.head(20).to_csv(index=False)
    output.write_text("old")
    (tmp_path / "rows.csv").write_text(text + "r,2026-02-16" + ",1" * 50 + "\n")
    monkeypatch.setitem(tables.read_parts.__kwdefaults__, "size", 5)

    with pytest.raises(DataError, match="must be readable CSV"):
        score(trained, str(output), rows=str(tmp_path / "rows.csv"))

    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.glob("*scores*")) == ["scores.csv"]
    assert not [*(tmp_path / "state" / "score" / "shop").iterdir()]


def test_a_table_without_a_valid_row_is_refused_and_kept(trained, tmp_path, live, monkeypatch):
    live.head(6).assign(plan="gold").to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.setitem(tables.read_parts.__kwdefaults__, "size", 4)

    with pytest.raises(DataError, match=r"no valid row among its 6; .* \(6 rows\)\."):
        score(trained, str(tmp_path / "scores.csv"), rows=str(tmp_path / "rows.csv"))

    kept = tmp_path / "state" / "quarantine" / "shop" / "score scores.parquet"
    assert len(pd.read_parquet(kept)) == 6
    assert not (tmp_path / "scores.csv").exists()


def test_a_file_that_exists_is_replaced_as_a_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    output = tmp_path / "scores.csv"
    score(trained, str(output), **SINCE)
    before = output.read_bytes()

    def interrupted(_, path, **__):
        Path(path).write_text("id,at\nr0,2026-")
        raise KeyboardInterrupt

    window = {name: pd.Timestamp(moment) for name, moment in SINCE.items()}
    with monkeypatch.context() as changed:
        changed.setattr(pd.DataFrame, "to_csv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            score.fn(trained, str(output), **window)

    assert output.read_bytes() == before
    score(trained, str(output), **SINCE)
    assert output.read_bytes() == before


@pytest.fixture
def into_a_table(trained, tmp_path):
    """Conf of a shop whose scores go into a table."""
    conf = yaml.safe_load(Path(trained).read_text())
    url = f"sqlite:///{tmp_path / 'scores.db'}"
    conf["data"]["scores"] = {"kind": "sql", "url": url, "table": "scores"}
    Path(trained).write_text(yaml.safe_dump(conf))
    return trained


def of_table(tmp_path):
    with closing(sqlite3.connect(tmp_path / "scores.db")) as database:
        return pd.read_sql_query("SELECT * FROM scores ORDER BY at", database)


def test_scores_go_into_a_table_as_into_a_file_where_no_file_is_named(into_a_table, tmp_path):
    score(into_a_table, str(tmp_path / "scores.parquet"), **SINCE, explain=True)

    for _ in range(2):
        result = score(into_a_table, **SINCE, explain=True)

        found, file = of_table(tmp_path), pd.read_parquet(tmp_path / "scores.parquet")
        assert (result["output"], result["predicted"]) == ("scores", 336)
        assert found["at"].iloc[1] == "2026-02-16 00:30:00.000000"
        pd.testing.assert_frame_equal(
            found.assign(at=pd.to_datetime(found["at"])).convert_dtypes(),
            file.convert_dtypes(),
            check_exact=True,
        )


def test_rows_that_a_table_does_not_get_are_kept_with_their_reason(into_a_table, tmp_path, live):
    rows = live.drop(columns="churned").head(10)
    rows.assign(plan=["gold", *rows["plan"][1:]]).to_csv(tmp_path / "more.csv", index=False)

    result = score(into_a_table, rows=str(tmp_path / "more.csv"))

    kept = pd.read_parquet(tmp_path / "state" / "quarantine" / "shop" / "score scores.parquet")
    assert result["quarantined"] == len(kept) == 1
    assert len(of_table(tmp_path)) == 9


def test_rows_of_a_key_within_one_microsecond_are_one_row_of_a_table(into_a_table, tmp_path, live):
    conf = yaml.safe_load(Path(into_a_table).read_text())
    conf["data"]["key_unique"] = False
    Path(into_a_table).write_text(yaml.safe_dump(conf))
    rows = live.drop(columns="churned").head(9).assign(id="same")
    rows["at"] = rows["at"].iloc[0] + pd.to_timedelta(500 * np.arange(9), "ns")
    rows.to_parquet(tmp_path / "more.parquet")

    for _ in range(2):
        result = score(into_a_table, rows=str(tmp_path / "more.parquet"))

        assert result["reasons"] == {"id and at must be unique together": 4}
        assert len(of_table(tmp_path)) == result["predicted"] == 5


def test_a_score_without_a_file_and_without_a_table_is_refused(shop):
    with pytest.raises(ConfigError, match=r"file to write, or a table in data\.scores\. Got neit"):
        score(shop)


def test_neither_the_command_nor_prefect_ever_shows_the_password_of_a_table(
    into_a_table, holdfast, monkeypatch
):
    url = "postgresql+pg8000://me:hunter2@127.0.0.1:1/none"
    monkeypatch.setenv("HOLDFAST__DATA__SCORES__URL", url)
    monkeypatch.setattr("flows.steps.RETRIES", 0)

    code, out, err = holdfast("score", into_a_table, "--verbose")

    assert code == 1
    assert "does not answer" in err
    assert "hunter2" not in out + err


@pytest.mark.parametrize("output", ["scores.xlsx", "none/scores.csv", "scores"])
def test_an_output_that_cannot_be_written_is_refused(shop, tmp_path, output):
    with pytest.raises(ConfigError, match=r"^The output must be a \.parquet or \.csv file in a"):
        score(shop, str(tmp_path / output))


def test_a_key_that_is_named_like_a_result_is_refused(shop, tmp_path):
    conf = yaml.safe_load(Path(shop).read_text())
    conf["data"]["key"] = "version"
    Path(shop).write_text(yaml.safe_dump(conf))

    with pytest.raises(ConfigError, match=r"Got version\. Name them otherwise\.$"):
        score(shop, str(tmp_path / "scores.csv"))


def test_a_window_without_rows_is_refused(trained, tmp_path):
    with pytest.raises(DataError, match=r"^There are no rows to score\."):
        score(trained, str(tmp_path / "scores.csv"), start="2031-01-01")
