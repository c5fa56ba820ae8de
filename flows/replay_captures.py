"""Captured requests of another environment, such as production's, sent to the API of this one."""

from collections import Counter
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import httpx
import numpy as np
import pandas as pd
from prefect import flow, get_run_logger

from flows.notes import OF_A_MODEL
from flows.steps import opened
from pipeline.config import Moment, Settings
from pipeline.data.captures import CAPTURED, first_captured, read_captures, read_labels
from pipeline.errors import ConfigError, DataError, UnavailableError
from pipeline.redaction import redacted

AT_ONCE: Final = pd.Timedelta("1D")
"""How much of a window is read at once."""
PATIENCE: Final = 30.0
"""Seconds that an answer may take."""
EQUAL: Final = 1e-6
"""Predictions that differ by no more than this, relative or absolute, count as equal."""
MOST_REASONS: Final = 10
"""Reasons of refused rows that are listed, the most frequent first."""
TAKEN: Final = {HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY}
AT, KEY, PREDICTION, *_, ID = CAPTURED


class Sent(NamedTuple):
    """What became of one request.

    Attributes
    ----------
    rows, answered, equal : int
        Its rows, those that have a prediction, and those whose prediction is as it was.
    differed : float
        Sum over answered rows of the difference from the captured prediction; of three or more
        classes the largest of their probabilities counts.
    most : float
        The largest of these differences.
    labels : int
        Labels of its rows that were stored.
    refused : tuple of str
        A reason for each problem of the contract, as the answer lists them.
    """

    rows: int
    answered: int = 0
    equal: int = 0
    differed: float = 0.0
    most: float = 0.0
    labels: int = 0
    refused: tuple[str, ...] = ()


@flow(name="replay-captures", **OF_A_MODEL)
def replay_captures(
    conf: str, source: str, start: Moment, end: Moment | None = None, address: str = ""
) -> dict[str, Any]:
    """Send what another environment's API answered in a window to the API of this environment.

    Requests go one after the other, oldest first, with the keys of their rows, and then the labels
    that have come for these. The API here captures them as its own, as of now.

    Raises
    ------
    ConfigError
        If the other environment is this one, or the API asks for another token.
    DataError
        If the other environment has no captures.
    UnavailableError
        If the API does not answer; the sentence says where to go on.
    """
    settings, _ = opened(conf)
    if source == settings.environment:
        message = f"--from must name another environment than {source}, which is this one."
        raise ConfigError(message)
    captures = settings.captures_in(source)
    if not captures.exists():
        message = (
            f"{source} must have a store of captures. Got none at {captures}. "
            "Serve the model there first."
        )
        raise DataError(message)
    until = end or pd.Timestamp.now("UTC").tz_localize(None)
    known = read_labels(captures)
    targets = dict(zip(known["key"], known["target"], strict=True))  # of a key the newest
    sent: list[Sent] = []
    with _client(settings, address) as client:
        _check_that_it_serves(client, settings.name)
        first = first_captured(captures) or until  # days before it would be read in vain
        for day in pd.date_range(max(start, first), until, freq=AT_ONCE, inclusive="left"):
            rows = read_captures(captures, start=day, end=min(day + AT_ONCE, until))
            sent += [_replayed(client, one, targets) for _, one in rows.groupby(ID, sort=False)]
    result = {"from": source, "to": settings.environment} | _summary(sent)
    get_run_logger().info(
        "%d requests of %s were sent: %d of %d rows are answered, %d as before.",
        *(result[name] for name in ("requests", "from", "answered", "rows", "equal")),
    )
    return result


def _summary(sent: list[Sent]) -> dict[str, Any]:
    """What became of all requests."""
    whole = pd.DataFrame(sent, columns=[*Sent._fields])
    answered = int(whole["answered"].sum())
    reasons = Counter(reason for one in sent for reason in one.refused)
    return {
        "requests": len(sent),
        "rows": int(whole["rows"].sum()),
        "answered": answered,
        "equal": int(whole["equal"].sum()),
        "mean_difference": float(whole["differed"].sum() / answered) if answered else None,
        "largest_difference": float(whole["most"].max()) if answered else None,
        "labels": int(whole["labels"].sum()),
        "reasons": dict(reasons.most_common(MOST_REASONS)),
    }


def _client(settings: Settings, address: str) -> httpx.Client:
    serving = settings.serving
    headers = {}
    if serving.token is not None:
        headers["Authorization"] = f"Bearer {serving.token.get_secret_value()}"
    own = f"http://{serving.host}:{serving.port}"
    try:
        return httpx.Client(base_url=address or own, headers=headers, timeout=PATIENCE)
    except httpx.InvalidURL as error:
        message = f"--to must be the address of an API, such as {own}. Got {address}: {error}."
        raise ConfigError(message) from error


def _check_that_it_serves(client: httpx.Client, name: str) -> None:
    """Raise ConfigError if it serves another model: production would capture its rows again."""
    served = _answer(client, "/version").get("name")
    if served != name:
        message = (
            f"--to must be the address of an API that serves {name}. Got "
            f"{redacted(str(client.base_url))}, which serves {served}. Name another with --to or "
            "HOLDFAST__SERVING__PORT."
        )
        raise ConfigError(message)


def _replayed(client: httpx.Client, rows: pd.DataFrame, targets: dict[str, Any]) -> Sent:
    """Send the rows of one captured request and their labels, and compare the predictions."""
    keys, since = rows[KEY].tolist(), rows[AT].iloc[0]
    features = rows.drop(columns=[*CAPTURED]).to_dict("records")
    # What is missing is left out: in a row that was answered, it may be.
    given = [{k: v for k, v in row.items() if pd.notna(v)} for row in features]
    answer = _answer(client, "/predict", {"rows": given, "keys": keys}, since)
    now = answer.get("probabilities", answer.get("predictions", [None] * len(rows)))
    pairs = [
        (np.atleast_1d(was), np.array([*one.values()] if isinstance(one, dict) else [one]))
        for was, one in zip(rows[PREDICTION], now, strict=True)
        if one is not None
    ]
    differences = [float(np.abs(was - one).max()) for was, one in pairs]
    labels = [{"key": key, "target": targets[key]} for key in keys if key in targets]
    stored = _answer(client, "/labels", {"labels": labels}, since) if pairs and labels else {}
    return Sent(
        rows=len(rows),
        answered=len(pairs),
        equal=sum(np.allclose(one, was, rtol=EQUAL, atol=EQUAL) for was, one in pairs),
        differed=sum(differences),
        most=max(differences, default=0.0),
        labels=stored.get("stored", 0),
        refused=tuple(f"{one['column']}: {one['rule']}" for one in answer.get("problems", ())),
    )


def _answer(
    client: httpx.Client,
    route: str,
    content: dict[str, Any] | None = None,
    since: pd.Timestamp | None = None,
) -> dict[str, Any]:
    """The answer to a request, which may refuse its rows; any other is an error."""
    api = redacted(f"The API at {client.base_url}")
    cure = f", and go on with --start {since.isoformat()}." if since else "."
    try:
        response = client.request("POST" if content else "GET", route, json=content)
        found = response.json() if response.status_code in TAKEN else {}
    except httpx.TransportError as error:
        message = f"{api} does not answer ({error}). Start it{cure}"
        raise UnavailableError(message) from error
    except ValueError:
        found = None
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        message = f"{api} asks for its token. Set HOLDFAST__SERVING__TOKEN to it."
        raise ConfigError(message)
    if not isinstance(found, dict) or not found:
        message = (
            f"{api} answered {response.status_code} to {route}, as no served model does. Look "
            f"into its log, or name another with --to{cure}"
        )
        raise UnavailableError(message)
    return found
