import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import Settings
from pipeline.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"

MINIMAL = """
name: churn
task: classification
data:
  train: {kind: file, path: rows.csv}
  key: id
  time: at
  target: churned
  features:
    age: {type: numeric}
"""


@pytest.fixture
def write(tmp_path):
    def written(text=MINIMAL, more=""):
        path = tmp_path / "churn.yaml"
        path.write_text(text + more)
        return path

    return written


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        Settings.load(path)
    return str(caught.value)


def changed(**changes):
    values = yaml.safe_load(MINIMAL)
    for key, value in changes.items():
        place = values
        *path, last = key.split("__")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return yaml.safe_dump(values)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_loads_and_is_named_after_its_model(path):
    assert Settings.load(path).name == path.stem


def test_all_mistakes_are_reported_at_once_with_dotted_keys(write):
    text = changed(
        name="Churn!",
        data__label_delay="soon",
        data__features__age__max="old",
        data__train__pth="x",
        training__sed=1,
        monitoring__alpha=2,
    )

    message = refusal(write(text))

    keys = [line.split(": ")[1] for line in message.splitlines()[1:]]
    assert sorted(keys) == [
        "data.features.age.max",
        "data.label_delay",
        "data.train.pth",
        "monitoring.alpha",
        "name",
        "training.sed",
    ]


MISTAKES = """\
name: Bad
task: classificatio
data:
  train: {kind: fil, path: x}
  live: {path: x}
  labels: {kind: sql, url: 5, query: yes}
  time: at
  feature: {}
  features:
    age: {type: number}
    income: {min: x, type: numeric, max: .inf}
    plan: {type: categorical, values: [1], nullble: true}
    b: {type: categorical, values: []}
    c:
training:
  seed: 1.5
  loss: abs
  params: 5
monitoring: {alpha: 2, batch: 7}
serving: 3
"""


@pytest.mark.parametrize(
    ("kind", "setting", "said"),
    [
        ({"data__train__kind": "sql"}, "train.path", "kind is sql"),
        ({"data__features__age__type": "categorical"}, "features.age.min", "type is categorical"),
    ],
)
def test_a_setting_of_another_kind_is_not_proposed_for_itself(write, kind, setting, said):
    text = changed(data__features__age__min=0, **kind)

    assert f"data.{setting}: no such setting where {said}. Check the" in refusal(write(text))


def test_each_mistake_has_its_line_and_is_put_in_words(write):
    assert refusal(write(MISTAKES)).splitlines()[1:] == [
        (
            "  line 1: name: must begin with a small letter and hold small letters, digits and "
            "single dashes between them only. Got 'Bad'. Rename it."
        ),
        (
            "  line 2: task: must be one of classification, regression. Got 'classificatio'. "
            "Did you mean classification?"
        ),
        "  line 3: data.target: is missing. Add it.",
        (
            "  line 4: data.train: kind must be one of file, sql, function, capture. Got 'fil'. "
            "Did you mean file?"
        ),
        "  line 5: data.live: must say which kind it is. Add kind: file, sql, function or capture.",
        "  line 6: data.labels.url: must be text. Got a whole number. Write it in quotes.",
        (
            "  line 6: data.labels.query: must be text. Got a truth value, which YAML reads from "
            "yes, no, on and off as well. Write it in quotes."
        ),
        "  line 8: data.feature: no such setting. Did you mean features?",
        (
            "  line 10: data.features.age: type must be one of numeric, categorical. Got 'number'. "
            "Did you mean numeric?"
        ),
        "  line 11: data.features.income.min: must be a number. Got text. Correct it.",
        "  line 11: data.features.income.max: must be a finite number. Correct it.",
        (
            "  line 12: data.features.plan.values.0: must be text. Got a whole number. "
            "Write it in quotes."
        ),
        "  line 12: data.features.plan.nullble: no such setting. Did you mean nullable?",
        "  line 13: data.features.b.values: must hold at least 1. Got 0. Add to it.",
        (
            "  line 14: data.features.c: must be a section of names and values. Got nothing. "
            "Correct it."
        ),
        "  line 16: training.seed: must be a whole number. Got a number. Correct it.",
        (
            "  line 17: training.loss: must be one of squared, absolute, log. Got 'abs'. "
            "Name one of them."
        ),
        (
            "  line 18: training.params: must be a section of names and values. Got a whole "
            "number. Correct it."
        ),
        "  line 19: monitoring.batch: must be a length of time such as 7D or 12h. Got 7.",
        "  line 19: monitoring.alpha: must be at most 0.5. Got 2. Correct it.",
        (
            "  line 20: serving: must be a section of names and values. Got a whole number. "
            "Correct it."
        ),
    ]


def test_a_rule_about_two_sections_has_the_line_of_the_setting_at_fault(write):
    message = refusal(write(MINIMAL, "training:\n  seed: 1\n  loss: absolute\n"))

    assert "\n  line 13: training.loss must be empty unless task is regression." in message


def test_a_mistake_of_the_environment_names_its_variable(write, monkeypatch):
    monkeypatch.setenv("HOLDFAST__MONITORING__ALPHA", "2")

    message = refusal(write(MINIMAL, "monitoring: {alpha: 0.1}\n"))

    assert message.splitlines()[1:] == [
        "  HOLDFAST__MONITORING__ALPHA: monitoring.alpha: must be at most 0.5. Got 2. Correct it."
    ]


def test_a_function_that_cannot_be_imported_says_why(write):
    text = changed(data__train={"kind": "function", "function": "nowhere.here:rows"})

    assert (
        "data.train.function: must be importable, as package.module:name. Got: No module named "
        "'nowhere'. Correct it, or run the command in the folder that has the module."
    ) in refusal(write(text))


def test_locks_are_kept_by_postgresql_or_by_files(write):
    message = refusal(write(changed(tracking__locks="mysql://me:secret@host/x")))

    assert "tracking.locks: must be the address of a PostgreSQL database" in message
    assert "secret" not in message


def test_a_slice_that_is_no_feature_is_named(write):
    message = refusal(write(changed(promotion__slices=["age", "carier"])))

    assert "promotion.slices must name features. Got carier." in message


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"sep": ";;"}, "data.train.sep: must be one ASCII sign: no letter"),
        ({"sep": "§"}, "data.train.sep: must be one ASCII sign"),
        ({"sep": ""}, "data.train.sep: must be one ASCII sign"),
        ({"sep": "\n"}, "data.train.sep: must be one ASCII sign"),
        ({"quotechar": "«"}, "data.train.quotechar: must be one ASCII sign"),
        ({"quotechar": "x"}, "data.train.quotechar: must be one ASCII sign"),
        ({"decimal": "e"}, "data.train.decimal: must be one sign"),
        ({"decimal": "-"}, "data.train.decimal: must be one sign"),
        ({"decimal": " "}, "data.train.decimal: must be one sign"),
        ({"decimal": ".."}, "data.train.decimal: must be one sign"),
        ({"sep": ",", "decimal": ","}, "sep, decimal and quotechar must differ"),
        ({"encoding": "utf-88"}, "encoding: must be an encoding that Python knows"),
        ({"encoding": "rot13"}, "encoding: must be an encoding that Python knows"),
        ({"encoding": "zlib"}, "encoding: must be an encoding that Python knows"),
        ({"compression": "rar"}, "data.train.compression"),
        ({"format": "xlsx"}, "data.train.format"),
        ({"format": "parquet", "sep": ";"}, "sep must only be set for CSV files"),
        ({"path": "x/*.parquet", "na_values": ["-"]}, "na_values must only be set for CSV files"),
        ({"delimiter": ";"}, "data.train.delimiter: no such setting"),
    ],
)
def test_options_of_a_file_that_cannot_be_obeyed_are_refused(write, options, rule):
    text = changed(data__train={"kind": "file", "path": "rows.csv"} | options)

    assert rule in refusal(write(text))


@pytest.mark.parametrize("role", ["key", "time", "target"])
def test_names_of_our_own_columns_are_refused(write, role):
    features = {"holdfast-prediction": {"type": "numeric"}, "prediction": {"type": "numeric"}}
    text = changed(**{f"data__{role}": "holdfast-x"}, data__features=features)

    message = refusal(write(text))

    got = "holdfast-prediction, holdfast-x."
    assert f"data.features: no column may begin with 'holdfast-'. Got {got}" in message


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("training: {until: 9999-12-31}", "years 1700 to 2261"),
        ("training: {seed: -1}", "training.seed"),
        ("monitoring: {persistence: 1000000000}", "monitoring.persistence"),
        ("tracking: {folder: 'a?b'}", "tracking.folder: must not hold ?"),
    ],
)
def test_values_that_nothing_could_use_are_refused(write, more, rule):
    assert rule in refusal(write(more=more))


def test_the_name_of_the_reasons_of_refused_rows_is_refused(write):
    text = changed(data__features={"quarantine_reason": {"type": "categorical"}})

    assert "no column may be 'quarantine_reason'" in refusal(write(text))


def test_a_misspelled_key_in_the_file_is_named(write):
    assert "monitoring.alhpa: no such setting" in refusal(write(more="monitoring: {alhpa: 0.1}"))


@pytest.mark.parametrize("key", ["_env_file", "_env_prefix", "1"])
def test_an_unknown_key_is_named(write, key):
    assert f"{key}: no such setting" in refusal(write(more=f"{key}: foo"))


@pytest.mark.parametrize("value", ["slack://hunter2", "[" * 20_000])
def test_a_variable_for_a_list_that_does_not_hold_json_is_named(write, monkeypatch, value):
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", value)

    message = refusal(write())
    assert "HOLDFAST__" in message
    assert "must hold JSON where the setting is a list" in message
    assert "hunter2" not in message


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text(f"a: {'[' * 3_000}{']' * 3_000}")

    assert "nested too deeply" in refusal(path)


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "a: " + "[" * 20_000 + "]" * 20_000, "{a: " * 9_000]
)
def test_a_file_that_is_nested_far_too_deeply_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "deep.yaml"
    path.write_text(text)

    message = refusal(path)

    assert "nested too deeply" in message
    assert "\n" not in message


def test_a_misspelled_key_in_the_environment_is_named(write, monkeypatch):
    monkeypatch.setenv("HOLDFAST__MONITORING__ALHPA", "0.1")

    assert "monitoring.alhpa: no such setting" in refusal(write())


def test_an_unknown_section_in_the_environment_is_named(write, monkeypatch):
    monkeypatch.setenv("HOLDFAST__MONITRING__ALPHA", "0.1")

    assert "HOLDFAST__MONITRING__ALPHA: no such section" in refusal(write())


def test_the_environment_goes_over_the_file(write, monkeypatch):
    monkeypatch.setenv("HOLDFAST__MONITORING__ALPHA", "0.01")
    monkeypatch.setenv("HOLDFAST__DATA__TRAIN__PATH", "other.csv")

    settings = Settings.load(write(more="monitoring: {alpha: 0.1, cooldown: 7}"))

    assert settings.monitoring.alpha == 0.01
    assert settings.monitoring.cooldown == 7
    assert settings.data.train.path == "other.csv"


def test_the_file_goes_over_the_defaults(write):
    assert Settings.load(write()).monitoring.alpha == 0.05
    assert Settings.load(write(more="monitoring: {alpha: 0.1}")).monitoring.alpha == 0.1


def test_arguments_of_the_estimator_in_the_environment_are_json_or_text(write, monkeypatch):
    given = {"N_ESTIMATORS": "5", "GAMMA": "1e-3", "OBJECTIVE": "binary:logistic", "FLAG": "true"}
    for name, value in given.items():
        monkeypatch.setenv(f"HOLDFAST__TRAINING__PARAMS__{name}", value)

    params = Settings.load(
        write(more="training: {params: {n_estimators: 3, depth: 2}}")
    ).training.params

    assert params == {
        "n_estimators": 5,
        "gamma": 0.001,
        "objective": "binary:logistic",
        "flag": True,
        "depth": 2,
    }
    assert isinstance(params["n_estimators"], int)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-01", "2024-02-01"),
        ("'2024-02-01T06:00'", "2024-02-01T06:00"),
        ("2024-02-01T06:00:00+01:00", "2024-02-01T05:00"),
        ("'20240201'", "2024-02-01"),
    ],
)
def test_a_moment_is_iso_8601_and_kept_in_utc(write, text, moment):
    settings = Settings.load(write(more=f"training: {{until: {text}}}"))

    assert settings.training.until == pd.Timestamp(moment)


@pytest.mark.parametrize("text", ["01/02/2024", "today", "2024.5", "20240201", "''", "24-01-02"])
def test_a_moment_that_is_ambiguous_or_a_word_is_refused(write, text):
    message = refusal(write(more=f"training: {{until: {text}}}"))

    assert "training.until: must be a date or time such as 2013-02-26" in message
    assert text.strip("'") in message


def test_a_list_in_the_environment_is_json(write, monkeypatch):
    monkeypatch.setenv("HOLDFAST__ALERTS__URLS", '["json://a", "json://b"]')

    assert len(Settings.load(write()).alerts.urls) == 2


@pytest.mark.parametrize(
    "text",
    [
        changed(data__train={"kind": "sql", "url": ["hunter2"], "query": "SELECT 1"}),
        changed(data__train={"kind": "sql", "ulr": "hunter2", "query": "SELECT 1"}),
        changed(alerts__urls=["json://hunter2", 3], alerts__token="hunter2"),  # noqa: S106
        MINIMAL + 'alerts: {urls: ["json://hunter2}',
        MINIMAL + "alerts: {urls: [json://hunter2: : }",
    ],
)
def test_a_secret_never_shows_in_an_error(write, text):
    with pytest.raises(ConfigError) as caught:
        Settings.load(write(text))

    chain = [caught.value, caught.value.__cause__]
    assert not [error for error in chain if "hunter2" in str(error)]


def test_a_secret_never_shows_in_settings(write):
    source = {"kind": "sql", "url": "postgresql://me:hunter2@db/x", "query": "SELECT 1"}

    settings = Settings.load(write(changed(data__train=source)))

    assert "hunter2" not in repr(settings) + settings.model_dump_json()


def test_a_key_that_stands_twice_is_refused(write):
    assert "'name' appears twice" in refusal(write(more="name: other"))


@pytest.mark.parametrize(
    ("text", "got"),
    [("", "NoneType"), ("- a\n- b", "list"), ("churn", "str"), ("a: [", "at line 1"), ("? {}", "")],
)
def test_a_file_that_is_no_mapping_is_refused(write, text, got):
    assert got in refusal(write(text))


def test_a_missing_file_is_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "path", ["nowhere.at_all:rows", "pipeline.data.sources:nothing", "no path"]
)
def test_a_bad_import_path_of_a_function_is_refused(write, path):
    text = changed(data__train={"kind": "function", "function": path})

    assert "data.train.function" in refusal(write(text))


def test_a_function_whose_module_breaks_is_refused(write, tmp_path, monkeypatch):
    (tmp_path / "breaks_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    text = changed(data__train={"kind": "function", "function": "breaks_on_import:rows"})

    assert "ZeroDivisionError" in refusal(write(text))


def test_something_that_cannot_be_called_is_no_function(write):
    text = changed(data__train={"kind": "function", "function": "pipeline.data.sources:CAPTURES"})

    assert "data.train.function" in refusal(write(text))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data__features__age": {"type": "numeric", "min": 2, "max": 1}}, "min must not exceed"),
        ({"data__features__age": {"type": "numeric", "min": float("nan")}}, "finite"),
        ({"data__features__age": {"type": "number"}}, "data.features.age"),
        ({"data__features__c": {"type": "categorical", "values": []}}, "at least 1"),
        ({"data__features__c": {"type": "categorical", "values": ["a", "a"]}}, "each label once"),
        ({"data__features": {}}, "data.features"),
        ({"data__key": "age"}, "key column 'age'"),
        ({"data__time": "age"}, "time column 'age'"),
        ({"data__target": "age"}, "target column 'age'"),
        ({"data__key": "at"}, "must be different columns"),
        ({"monitoring__batch": "0D"}, "longer than zero"),
        ({"monitoring__batch": "-7D"}, "not be negative"),
        ({"monitoring__batch": "month"}, "such as 7D or 12h. Got 'month'"),
        ({"monitoring__batch": "7"}, "such as 7D or 12h. Got '7'"),
        ({"monitoring__batch": 7}, "such as 7D or 12h. Got 7"),
        ({"monitoring__batch": "NaT"}, "length of time"),
        ({"training__until": 2013}, "such as 2013-02-26. Got 2013"),
        ({"training__until": "soon"}, "date or time"),
        ({"training__until": ""}, "date or time"),
        ({"training__holdout": "0D"}, "longer than zero"),
        ({"task": "ranking"}, "task"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(write, changes, rule):
    assert rule in refusal(write(changed(**changes)))


HOURLY = {"start": "2026-01-01", "every": "1h"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"time": None}, "time must name a column, or arrival must say when rows come"),
        ({"arrival": HOURLY}, "arrival must be empty where rows have a time. Got 'at'"),
        (
            {"time": None, "arrival": HOURLY, "live": {"kind": "file", "path": "live.csv"}},
            "arrival.live_start must say when the first row of live comes",
        ),
        ({"key": None, "labels": {"kind": "capture"}}, "labels are joined by a key. Name it"),
    ],
)
def test_a_table_without_time_or_key_needs_what_stands_for_it(write, changes, sentence):
    values = yaml.safe_load(MINIMAL)
    values["data"] = {k: v for k, v in (values["data"] | changes).items() if v is not None}

    assert sentence in refusal(write(yaml.safe_dump(values)))


@pytest.mark.parametrize(
    ("derive", "sentence"),
    [
        ({"hour": "hour(at)"}, "derive must name features. Got hour. Declare them"),
        ({"age": "eval(x)"}, "data.derive.age: must be one of hour, weekday, day, month, year of"),
        ({"age": "bins(x, 1)"}, "derive.age makes labels, so that its type must be categorical"),
        ({"age": "log(churned)"}, "derive.age must be a function of other columns than ('churned'"),
        ({"age": "log(age)"}, "derive.age must be a function of other columns than ('age'"),
    ],
)
def test_a_derived_column_that_cannot_be_is_refused(write, derive, sentence):
    assert sentence in refusal(write(changed(data__derive=derive)))


def test_captures_of_a_table_without_a_time_carry_their_own(write):
    live = {"kind": "capture"}
    values = yaml.safe_load(changed(data__arrival=HOURLY, data__live=live))
    del values["data"]["time"], values["data"]["key"]

    assert Settings.load(write(yaml.safe_dump(values))).data.arrival is not None


def test_a_feature_in_two_roles_is_reported_beside_another_mistake(write):
    message = refusal(write(changed(data__label_delay="soon", data__target="age")))

    assert "data.label_delay" in message
    assert "target column 'age'" in message


def test_a_column_without_a_name_is_refused(write):
    message = refusal(write(changed(data__features={"": {"type": "numeric"}})))

    assert "each column must have a name" in message


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [
        ("2013-02-26", "2013-02-26"),
        ("2013-02-26 03:30:00", "2013-02-26 03:30"),
        ("'2013-02-26'", "2013-02-26"),
        ("'2013-02-26T02:00+02:00'", "2013-02-26"),
    ],
)
def test_a_moment_may_be_a_yaml_date_or_text(write, written_as, read_as):
    settings = Settings.load(write(more=f"training: {{until: {written_as}}}"))

    assert settings.training.until == pd.Timestamp(read_as)


@pytest.mark.parametrize(
    ("written_as", "dumped_as"),
    [("7D", "7D"), ("12h", "12h"), ("24h", "1D"), ("90min", "90min"), ("P1DT12H", "36h")],
)
def test_a_length_of_time_is_dumped_as_text_in_the_largest_unit_that_fits(
    write, written_as, dumped_as
):
    settings = Settings.load(write(changed(monitoring__batch=written_as)))

    assert settings.monitoring.batch == pd.Timedelta(written_as)
    assert settings.model_dump(mode="json")["monitoring"]["batch"] == dumped_as


def test_settings_that_were_dumped_as_json_are_read_back_unchanged(write):
    training = {"until": "2013-02-26T03:30", "window": "26W", "holdout": "36h"}
    settings = Settings.load(write(changed(training=training, data__label_delay="1D")))

    dumped = settings.model_dump_json()

    assert '"until":"2013-02-26T03:30:00"' in dumped
    assert Settings.model_validate_json(dumped).model_dump_json() == dumped


def test_defaults_are_dumped_as_text_so_that_stored_hashes_of_settings_still_match(write):
    dumped = Settings.load(write()).model_dump_json(include={"data", "training"})

    assert '"label_delay":"0D"' in dumped
    assert '"until":null,"window":null,"holdout":"14D"' in dumped


def test_settings_cannot_be_changed(write):
    settings = Settings.load(write())

    with pytest.raises(ValidationError):
        settings.name = "other"
    with pytest.raises(ValidationError):
        settings.monitoring.alpha = 0.5


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data__classes": ["no", "no"]}, "data.classes: must be different labels. Got 'no' more"),
        (
            {"data__classes": ["a", "b", "c", "b"]},
            "data.classes: must be different labels. Got 'b'",
        ),
        ({"data__classes": ["a"]}, "data.classes"),
        ({"data__classes": [False, True]}, "data.classes"),
        ({"data__classes": ["no", "yes"], "task": "regression"}, "data.classes must be empty"),
    ],
)
def test_classes_are_different_labels_of_a_classification(write, changes, rule):
    assert rule in refusal(write(changed(**changes)))


@pytest.mark.parametrize(
    ("variable", "more", "said"),
    [
        (["MONITORING", '{"persistence": 3}'], {"monitoring__alpha": 7}, "line "),
        (["MONITORING", '{"alpha": 7}'], {"monitoring__alpha": 0.1}, "HOLDFAST__MONITORING: "),
        (["DATA__TARGET", "age"], {}, "HOLDFAST__DATA__TARGET: data.features: target column 'age'"),
        (["DATA__TRAIN__KIND", "sqll"], {}, "HOLDFAST__DATA__TRAIN__KIND: data.train: kind must"),
        (["TASK", "regression"], {"data__classes": ["a", "b"]}, "HOLDFAST__TASK: data.classes"),
    ],
)
def test_a_mistake_of_the_environment_is_not_blamed_on_the_file(
    write, monkeypatch, variable, more, said
):
    monkeypatch.setenv(f"HOLDFAST__{variable[0]}", variable[1])

    assert refusal(write(changed(**more))).splitlines()[1].strip().startswith(said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (f"monitoring: {{alpha: {'9' * 5_000}}}\n", "a whole number has 5000 digits at line 11."),
        (f"training: {{seed: 0x{'9' * 5_000}}}\n", "a whole number has 5002 digits at line 11."),
        ('alerts: {quiet: "\\ud800"}\n', r"\ud800 is half of a character at line 11."),
        ('"\\udc00": 1\n', r"\udc00 is half of a character at line 11."),
    ],
)
def test_what_no_setting_can_hold_is_refused_with_its_line(write, more, said):
    assert f"must be readable YAML. Got: {said} Correct the file." in refusal(write(more=more))


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "churn.yaml")

    assert "must be a file, which can be read again. Got a pipe" in refusal(tmp_path / "churn.yaml")


@pytest.mark.parametrize("path", ["", "/", "//", " ", "file:///"])
def test_a_path_that_names_no_files_is_refused(write, path):
    message = refusal(write(changed(data__train__path=path)))

    assert f"data.train.path: must name files, a folder or a pattern. Got {path!r}." in message
