"""How the result of each command looks on a terminal, and as JSON."""

import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows.foreseen import foreseen
from flows.sentences import of_batch, of_version
from flows.tables import backtest_table, replay_table, review_table, tuning_table
from pipeline.config import Settings
from pipeline.reporting.events import how_to_answer
from pipeline.reporting.history_page import file_of

Result = dict[str, Any]
WIDTH: Final = 110
"""Columns of a table where the output is no terminal."""
NAMED: Final = {
    "deploy": "deployments",
    "doctor": "findings",
    "replay": "batches",
    "review": "waiting",
}
"""What a list is called in the JSON object of a command that returns one."""


def print_json(command: str, result: Result | list[Result]) -> None:
    """Print a result as one line of JSON; numbers that are not finite become null."""
    shown = {NAMED[command]: result} if isinstance(result, list) else result
    sys.stdout.write(TypeAdapter(Any).dump_json(shown, fallback=_plain).decode() + "\n")


def _plain(value: Any) -> Any:
    """A value that JSON has no form for, as a number or as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def show_version(result: Result, settings: Settings) -> None:
    """Show what became of a version at the gate."""
    _say(of_version(result, settings.name, settings.conf))


def show_validation(result: Result, settings: Settings) -> None:
    """Show how many rows are valid, and why the others are not."""
    _say(
        f"{_count(result['rows'], 'row')} of {settings.name} read, {result['valid']:,} valid, "
        f"{result['quarantined']:,} quarantined."
    )
    if result["reasons"]:
        _console().print(_reasons(result["reasons"]))
        _say(f"The quarantined rows are in {result['folder']}.")


def show_batch(result: Result, settings: Settings) -> None:
    """Show what was found in a batch and what follows from it."""
    _say(of_batch(result, settings.name))


def show_scores(result: Result, settings: Settings) -> None:
    """Show how many rows were predicted, and why the others were not."""
    _say(
        f"{result['predicted']:,} of {_count(result['rows'], 'row')} of {settings.name} predicted "
        f"by version {result['version']}, in {result['output']}."
    )
    if result["reasons"]:
        _console().print(_reasons(result["reasons"]))


def show_replay(story: list[Result], settings: Settings) -> None:
    """Show all batches as a table, and what the replay comes to."""
    console = _console()
    console.print(replay_table(story, settings.task, narrow=console.width < WIDTH))
    _say(closing(story, settings))
    _say(f"The picture of it: {file_of(settings.tracking.folder, settings.name)}")


def show_review(questions: list[Result], settings: Settings) -> None:
    """Show the broken batches that wait for an answer, and how to answer."""
    if not questions:
        _say(f"No broken batch of {settings.name} waits for an answer.")
        return
    _console().print(review_table(questions))
    _say(how_to_answer(settings.conf, questions[0]["batch"]))


def show_rollback(result: Result, settings: Settings) -> None:
    """Show which version is the champion again."""
    release = f"holdfast release {shlex.quote(settings.conf)}"
    before = f"; it was version {result['from']}" if result["from"] else ""
    _say(
        f"Version {result['to']} of {settings.name} is the champion again{before}. "
        f"No version is promoted until `{release}`."
    )


def show_release(result: Result, settings: Settings) -> None:
    """Show the champion after promotion was allowed again."""
    waited = ", ".join(map(str, result["waited"]))
    _say(
        f"Versions of {settings.name} are promoted again. "
        f"{f'Waited until now: version {waited}. ' if waited else ''}"
        f"The champion is version {result['champion']}."
    )


def show_digest(result: Result, settings: Settings) -> None:
    """Show how many requests were refused."""
    _say(
        f"{_count(result['refused'], 'request')} to {settings.name} refused in the week before "
        f"{result['until']}, {result['before']:,} in the week before that. "
        "Columns, callers and labels that seem new are in the run's page in MLflow."
    )
    if result["reasons"]:
        _console().print(_reasons(result["reasons"], "Refused requests", "problems"))


def show_replayed_captures(result: Result, settings: Settings) -> None:
    """Show how many captured requests were sent, and how far predictions differ."""
    refused = result["rows"] - result["answered"]
    _say(
        f"{_count(result['requests'], 'request')} of {result['from']} sent to {settings.name}: "
        f"{result['answered']:,} of {_count(result['rows'], 'row')} answered, "
        f"{refused:,} refused; {_count(result['labels'], 'label')} stored."
    )
    if result["answered"]:
        _say(
            f"Predictions of {result['equal']:,} rows are as they were in {result['from']}; they "
            f"differ by {result['mean_difference']:.3g} on the mean, "
            f"by {result['largest_difference']:.3g} at most."
        )
    if result["reasons"]:
        _console().print(_reasons(result["reasons"], "Refused rows", "problems"))


def show_export(result: Result, settings: Settings) -> None:
    """Show where an exported version is and how to serve it."""
    _say(
        f"Version {result['version']} of {settings.name} is in {result['folder']}. "
        f"Serve it: MODEL_DIR={shlex.quote(result['folder'])} holdfast serve"
    )


def show_pages(result: Result, settings: Settings) -> None:
    """Show pages and what became of them, or which addresses took the test page."""
    for one in result.get("addresses", ()):
        _say(f"{one['address']} took it." if one["took"] else f"{one['address']}: {one['why']}.")
    for one in [*result.get("undelivered", ()), *result.get("pages", ())]:
        _say(f"{one['written']}  {one['subject']}  [{one['id']}]")
        for sent in one["sends"] or [{"address": "nobody was to be paged", "tries": 0}]:
            became = f": {sent['state']} {sent['why']}".rstrip() if sent["tries"] else ""
            _say(f"    {sent['address']}{became}")
        _say("\n".join(f"    | {line}" for line in one["body"].splitlines()))
    if "undelivered" in result:
        found = _count(len(result["undelivered"]), "page")
        _say(f"{found} of {settings.name} not taken by every address.")


def show_init(result: Result) -> None:
    """Show what was written for a table, what was left out of it, and what to type next."""
    read = ", ".join(f"{name} {value!r}" for name, value in result["options"].items())
    _say(
        f"Wrote {result['conf']}: {result['task']} of {result['target']}, from "
        f"{_count(result['rows'], 'row')} and {_count(result['columns'], 'column')}."
        f"{f' Read with {read}.' if read else ''}"
    )
    looks = f"in a random order, as the table looks sorted by {result['sorted_by']}"
    again = "" if result["key_unique"] else ", which repeats at other times"
    evenly = f"none, rows come evenly, {looks if result['sorted_by'] else 'in their order'}"
    _say(
        f"Time: {result['time'] or evenly}. Key: {result['key'] or 'none'}{again}. "
        f"Batches of {result['batch']}, {_count(len(result['features']), 'feature')}, "
        f"{len(result['left_out'])} left out{':' if result['left_out'] else '.'}"
    )
    for name, why in result["left_out"].items():
        _say(f"  {name}: {why}")
    _say("Read the file, then:")
    for command in result["next"]:
        _say(f"  {command}")
    _say("`holdfast deploy` schedules the monitors of conf/, which retrain when drift persists.")


def show_doctor(findings: list[Result], settings: Settings) -> None:
    """Show what is missing or odd, and what to do about each."""
    if not findings:
        _say(f"Nothing is missing or odd in the state of {settings.name}.")
    for finding in findings:
        _say(f"{finding['what']}\n  {finding['cure']}")


def show_backup(result: Result, settings: Settings) -> None:
    """Show what an archive holds, and what it does not."""
    files, size = result["files"] + result["databases"], f"{result['bytes'] / 1e6:,.1f} MB"
    folder = settings.tracking.folder
    _say(f"{_count(files, 'file')} of {folder} are in {result['archive']} ({size}).")
    if result["elsewhere"]:
        _say(f"Not in it, as they are kept elsewhere: {', '.join(result['elsewhere'])}.")


def show_restored(result: Result, settings: Settings) -> None:
    """Show what was put back, and what to do next."""
    doctor = f"holdfast doctor {shlex.quote(settings.conf)}"
    _say(f"{_count(result['files'], 'file')} are in {result['folder']}. Look at it: `{doctor}`.")


def show_check(checked: Result) -> None:
    """Show what was found in a model's file and rows, and the plan."""
    _say(foreseen(checked))


def show_deployments(deployed: list[Result]) -> None:
    """Show what runs when, and which schedules were left as people made them."""
    for one in deployed:
        if not (one["schedule"] or one["changed"]):
            continue
        runs = f"{one['schedule']}, next {one['next'].replace('T', ' ')} UTC" if one["next"] else ""
        left = f"{one['changed']}; left as it is" if one["changed"] else ""
        _say(f"{one['deployment']}  {'; '.join(filter(None, [runs or 'not scheduled', left]))}")
    became = Counter(one["became"] for one in deployed)
    counts = ", ".join(f"{n} {word}" for word, n in sorted(became.items()))
    _say(f"{_count(len(deployed), 'deployment')}: {counts}.")
    _say("The others run when asked: prefect deployment run <flow>/<model> --watch")


def show_pruned(result: Result, settings: Settings) -> None:
    """Show how much space is freed, or would be."""
    parts = ", ".join(f"{what} {size / 1e6:,.1f} MB" for what, size in result["freed"].items())
    whole = f"{sum(result['freed'].values()) / 1e6:,.1f} MB"
    if result["applied"]:
        _say(f"Deleted {whole} of {settings.name}: {parts}.")
    else:
        _say(f"{whole} of {settings.name} would be deleted: {parts}. --apply deletes them.")
    for address in result["unreached"]:
        _say(f"MLflow cannot delete files from {address}; delete them there.")


def show_forgotten(result: Result, settings: Settings) -> None:
    """Show what was removed of a person, and what is left, with what to do about it."""
    counts = ", ".join(f"{n:,} {what}" for what, n in result["removed"].items())
    _say(f"Removed from what is kept of {settings.name}: {counts or 'nothing is left to remove'}.")
    _say(f"Recorded as request {result['request']}, asked for {result['asked']}.")
    _say("Not removed:")
    for item in result["left"]:
        _say(f"- {item['what']}\n  {item['do']}")


def show_backtest(result: Result, settings: Settings) -> None:
    """Show what each policy of retraining was worth, and which is recommended."""
    _console().print(backtest_table(result))
    _say(result["sentence"])
    if result["command"]:
        _say(f"On a server: {result['command']}")
    settled = "; ".join(f"{name}: {value}" for name, value in result["settings"].items())
    if result["applied"]:
        _say(f"Written into {settings.conf}: monitoring, {settled}.")
    elif settled:
        _say(f"Settings of monitoring: {settled}. `--apply` writes them into {settings.conf}.")


def show_tuning(result: Result, settings: Settings) -> None:
    """Show the trials of a search, the best parameters, and what to do with them."""
    _console().print(tuning_table(result))
    _say(result["sentence"])
    if result["applied"]:
        _say(f"Written into {settings.conf}. `holdfast train {settings.conf}` trains a version.")
    elif result["params"]:
        found = "; ".join(f"{name}: {value}" for name, value in result["params"].items())
        _say(f"Parameters: {found}. `--apply` writes them into {settings.conf}.")


def show_upgrade(result: Result, settings: Settings) -> None:
    """Show which packages have newer versions, and what they make of predictions."""
    changed, others = result["changed"], result["others"]
    _say(f"{_count(len(changed), 'package')} that read, fit or predict would change.")
    for one in changed:
        _say(f"  {_upgrade(one)}")
    if others:
        _say(f"{_count(len(others), 'other')}: {', '.join(map(_upgrade, others))}.")
    for alias, one in result["golden"].items():
        _say(f"Golden rows of the {alias}, version {one['version']}: {one['verdict']}.")
        _say_if(one["message"])
    fitted = result["training"]
    apart = f", at most {fitted['apart']:.3g} apart" if fitted.get("apart") else ""
    _say(
        f"Predictions of {_count(result['rows'], 'row')} after a small training of "
        f"{settings.name}: {fitted['verdict']}{apart}."
    )
    _say_if(fitted["message"])
    if result["culprit"]:
        _say(f"What changed them: {_upgrade(result['culprit'])}.")
    if result["verdict"] != "different":  # else it is the error that the command ends with
        _say(f"Verdict: {result['verdict']}. {result['sentence']}")


def _upgrade(one: Result) -> str:
    return f"{one['package']} {one['before']} to {one['now']}"


def _say_if(text: str) -> None:
    if text:
        _say(f"  {text}")


def progress() -> Progress:
    """A bar on standard error with the time that is left; none where it is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )


SHOW: Final[dict[str, Callable[..., None]]] = {
    "backtest": show_backtest,
    "backup": show_backup,
    "check": show_check,
    "deploy": show_deployments,
    "digest": show_digest,
    "doctor": show_doctor,
    "export": show_export,
    "forget": show_forgotten,
    "monitor": show_batch,
    "page": show_pages,
    "promote": show_version,
    "prune": show_pruned,
    "register": show_version,
    "release": show_release,
    "replay": show_replay,
    "replay-captures": show_replayed_captures,
    "restore": show_restored,
    "review": show_review,
    "rollback": show_rollback,
    "score": show_scores,
    "train": show_version,
    "tune": show_tuning,
    "upgrade-check": show_upgrade,
    "validate": show_validation,
}


def closing(story: list[Result], settings: Settings) -> str:
    """What a replay comes to, in two sentences."""
    retrains = sum(row["action"] == "retrain" for row in story)
    broken = sum(bool(row["causes"]) for row in story)
    accepted = sorted({fault for row in story for fault in row["accepted_unanswered"]})
    taken = f"{', '.join(accepted)} accepted without an answer, " if accepted else ""
    versions = len({row["version"] for row in story})
    means = {
        side: pd.Series([row[side].get(settings.loss, np.nan) for row in story]).mean()
        for side in ("maintained", "alone")
    }
    return (
        f"{_count(len(story), 'batch', 'batches')} judged, "
        f"{f'{broken} of them broken, ' if broken else ''}"
        f"{taken}"
        f"{_count(retrains, 'retrain')} asked for, "
        f"{_count(versions, 'champion')} served. "
        f"Mean {settings.loss}: {means['maintained']:.4f} maintained, "
        f"{means['alone']:.4f} left alone."
    )


def _reasons(
    reasons: dict[str, int], title: str = "Quarantined rows", counted: str = "rows"
) -> Table:
    drawn = Table("why", title=title)
    drawn.add_column(counted, justify="right")
    for why, rows in reasons.items():
        drawn.add_row(escape(why), f"{rows:,}")
    return drawn


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _say(text: str) -> None:
    _console().print(text, markup=False, highlight=False, soft_wrap=True)
