import pytest

from pipeline.config import Settings, edited
from pipeline.errors import ConfigError

CONF = """\
# A shop.
name: shop
task: classification                # will they leave?
data:
  train: {kind: file, path: rows.parquet}
  key: id
  time: at
  target: churned
  features: {amount: {type: numeric}}   # one column
"""
WEEKLY = "monitoring:  # weekly\n  # a week\n{}  batch: 7D   # seven days\n"


def write(tmp_path, more):
    path = tmp_path / "shop.yaml"
    path.write_text(CONF + more)
    return path


CHANGES = {("monitoring", "alpha"): 1e-9, ("monitoring", "harmless"): "record"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\nmonitoring:\n  harmless: record\n  alpha: 1.0e-09\n"),
        (
            WEEKLY.format(""),
            WEEKLY.format("  harmless: record\n  alpha: 1.0e-09\n"),
        ),
        (
            "monitoring:\n    alpha: 0.01  # rarely\n    batch: 7D\n",
            "monitoring:\n    harmless: record\n    alpha: 1.0e-09  # rarely\n    batch: 7D\n",
        ),
        (
            "monitoring: {alpha: 0.01, batch: 7D}   # weekly\n",
            "monitoring: {harmless: record, alpha: 1.0e-09, batch: 7D}   # weekly\n",
        ),
        (
            "monitoring:\n  harmless: 'retrain'  # as ever\n  alpha: 0.2\n# The end.",
            "monitoring:\n  harmless: record  # as ever\n  alpha: 1.0e-09\n# The end.",
        ),
    ],
    ids=["no section", "other settings", "one of them", "in braces", "both"],
)
def test_only_the_settings_change(tmp_path, before, after):
    path = write(tmp_path, before)

    text = edited(path, CHANGES)

    assert sorted(text.splitlines()) == sorted((CONF + after).splitlines())
    path.write_text(text)
    monitoring = Settings.load(path).monitoring
    assert (monitoring.alpha, monitoring.harmless) == (1e-9, "record")


def test_what_is_written_twice_changes_nothing_more(tmp_path):
    path = write(tmp_path, "monitoring: {alpha: 0.01}\n")
    path.write_text(edited(path, CHANGES))

    assert edited(path, CHANGES) == path.read_text()


def test_a_section_without_settings_is_named(tmp_path):
    path = write(tmp_path, "monitoring:\n  # nothing yet\n")

    with pytest.raises(ConfigError, match=r"monitoring of .* must hold a setting"):
        edited(path, CHANGES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\ntraining:\n  params: {max_depth: 4}\n"),
        ("training: {seed: 1}\n", "training: {params: {max_depth: 4}, seed: 1}\n"),
        ("training: {params: {}}\n", "training: {params: {max_depth: 4}}\n"),
        (
            "training:\n  params:\n    # deep\n    max_depth: 9  # deeper\n    gamma: 1\n",
            "training:\n  params:\n    # deep\n    max_depth: 4  # deeper\n    gamma: 1\n",
        ),
        (
            "training:\n  params: {gamma: 1}  # all\n",
            "training:\n  params: {max_depth: 4, gamma: 1}  # all\n",
        ),
    ],
    ids=["no section", "no params", "empty", "one of them", "in braces"],
)
def test_a_setting_within_a_setting_changes_alone(tmp_path, before, after):
    path = write(tmp_path, before)

    text = edited(path, {("training", "params", "max_depth"): 4})

    assert text == CONF + after
