"""What `holdfast check` foresees, in words."""

from collections.abc import Iterator
from math import inf, isfinite, isnan
from statistics import median
from typing import Any, Final

Result = dict[str, Any]
_MOST: Final = 6
"""Columns that are listed by name."""
_KINDS: Final = {
    "location": ("the mean of a number", "{:.2f} sd"),
    "spread": ("the spread of a number", "sd x {:.2f}"),
    "labels": ("rows with another label", "{:.1%}"),
    "missing": ("values that are missing", "{:.1%}"),
}
"""What changes, and how its size is written."""


def foreseen(checked: Result) -> str:
    """The report of a check, for a terminal."""
    parts = {
        "Rows": _rows(checked),
        "Batches": _batches(checked),
        "Training": _training(checked),
        "Ordinary batches": _ordinary(checked),
        "When nothing is wrong, in a year": _expected(checked),
        f"Smallest change found {checked['power']:.0%} of the time": _shifts(checked),
        "What the table does without": iter(checked["lost"]),
    }
    text = [f"{checked['conf']} can be used.", ""]
    for heading, lines in parts.items():
        said = [f"  {line}" for line in lines]
        text += [heading, *said, ""] if said else []
    return "\n".join(text).rstrip()


def _rows(checked: Result) -> Iterator[str]:
    rows = checked["rows"]
    drawn = rows["looked_at"] < rows["read"]
    some = f", {rows['looked_at']:,} of which are looked at" if drawn else ""
    yield f"{rows['read']:,} rows from {rows['first']} to {rows['last']}{some}."
    for why, n in [("rows refused in all", rows["refused"]), *rows["reasons"].items()]:
        if n:
            yield f"{n:,} refused: {why}" if why in rows["reasons"] else f"{n:,} {why}:"
    labels = rows["labels"]
    if checked["task"] == "classification":
        yield "Labels: " + ", ".join(f"{value} in {n:,} rows" for value, n in labels.items())
    else:
        yield "Target: " + ", ".join(f"{name} {value:,.4g}" for name, value in labels.items())
    if rows["unlabelled"]:
        yield f"{rows['unlabelled']:,} rows without a label."


def _batches(checked: Result) -> Iterator[str]:
    batches = checked["batches"]
    yield (
        f"{batches['found']:,} of {batches['length']}, each of {batches['rows']:,} rows (the "
        f"smallest of {batches['smallest']:,}); {batches['a_year']:,.0f} a year."
    )


def _training(checked: Result) -> Iterator[str]:
    reference = checked["reference"]
    yield (
        f"The first version is trained on {reference['rows']:,} rows before {reference['until']}. "
        f"They are its reference, of {reference['blocks']} blocks as long as a batch."
    )
    yield f"Its fits take about {checked['training_seconds']:,.0f} s on this machine."
    if checked["first_verdict"]:
        yield f"The first verdict on persistent drift comes at {checked['first_verdict']}."
    else:
        yield (
            "There will be no verdict on persistent drift: four blocks are needed. Give more "
            "history, or set a shorter monitoring.batch."
        )


def _ordinary(checked: Result) -> Iterator[str]:
    columns = checked["columns"]
    depends = [one for one in columns if one["depends"]]
    for one in depends[:_MOST]:
        moves = ", and neighbours are alike: a season or a trend" if one["moves"] else ""
        yield (
            f"{one['column']} differs by {one['differs']:.2g} between batches, its variance "
            f"{one['effect']:,.1f} times that of independent rows{moves}."
        )
    if depends[_MOST:]:
        yield f"So do {len(depends) - _MOST} more: {_names(depends[_MOST:])}."
    if columns and not depends:
        yield "They differ no more than chance explains, in every column."
    elif depends:
        yield (
            "Sizes are in sd for numbers and in shares of rows for labels. What goes on after the "
            "training rows, such as another season, is drift and is found."
        )


def _names(columns: list[Result]) -> str:
    return ", ".join(str(one["column"]) for one in columns)


def _few(count: float) -> str:
    """A small number of batches, in one or two digits."""
    return f"{count:.1f}" if count >= 1 or count == 0 else f"{count:.1g}"


def _expected(checked: Result) -> Iterator[str]:
    about, most = checked["expected"], checked["at_most"]
    yield f"about {_few(about['alarms'])} batches alarm (at most {_few(most['alarms'])})"
    yield (
        f"about {_few(about['retrains'])} ask for a retrain in vain because of drift "
        f"(at most {_few(most['retrains'])})"
    )
    yield f"at most {_few(most['performance'])} do because of lost performance"
    yield f"about {_few(about['broken'])} are called broken (at most {_few(most['broken'])})"


def _shifts(checked: Result) -> Iterator[str]:
    for kind, (what, form) in _KINDS.items():
        found = [one for one in checked["shifts"] if one["kind"] == kind]
        sizes = [one["batch"] for one in found if not isnan(one["batch"])]
        if not sizes:
            continue
        hardest = max(found, key=lambda one: -inf if isnan(one["batch"]) else one["batch"])
        line = f"{what}: {_size(form, median(sizes))} in one batch"
        if len(sizes) > 1:
            line += f", {_size(form, hardest['batch'])} in {hardest['column']}, the hardest"
        several = [one["together"] for one in found if not isnan(one["together"])]
        if several:
            line += f"; {_size(form, median(several))} in the batches judged together"
        yield line


def _size(form: str, size: float) -> str:
    return form.format(size) if isfinite(size) else "nothing, however large,"
