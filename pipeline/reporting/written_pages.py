"""Pages that were written: which were not delivered, and which nobody needs any more."""

from pathlib import Path
from typing import Any, Final

from pipeline.reporting.outbox_file import open_pages, transaction
from pipeline.reporting.rendering import moment_of


def undelivered(file: Path, model: str) -> list[dict[str, Any]]:
    """Pages of a model that an address has not taken, oldest first; see `since`."""
    return [page for page in since(file, model) if not _is_delivered(page)]


def _is_delivered(page: dict[str, Any]) -> bool:
    return bool(page["sends"]) and all(sent["state"] == "accepted" for sent in page["sends"])


def since(file: Path, model: str, page_id: str = "") -> list[dict[str, Any]]:
    """Pages of a model that people were to get, from one of them on, oldest first.

    Parameters
    ----------
    file : Path
        The outbox.
    model : str
        Name of the model.
    page_id : str
        Id of the first page; empty: from the oldest on.

    Returns
    -------
    list of dict
        ``id``, ``written``, ``subject`` and ``body`` of each page, and ``sends``: for each
        ``address``, its hash, the ``state``, ``tries`` and ``why``. Empty: no page has the id.
    """
    if not file.exists():
        return []
    with transaction(file) as outbox:
        pages = outbox.execute(_SINCE, {"model": model, "id": page_id}).fetchall()
        found = []
        for page in pages:
            rows = outbox.execute(
                "SELECT address, state, tries, why FROM sends WHERE page = ?", (page["number"],)
            ).fetchall()
            shown = {key: page[key] for key in ("id", "subject", "body")}
            shown |= {"written": moment_of(page["written"]), "sends": [dict(row) for row in rows]}
            found.append(shown)
    return found


_SINCE: Final = """
SELECT number, id, written, subject, body FROM pages WHERE model = :model AND due
  AND (:id = '' OR number >= (SELECT number FROM pages WHERE id = :id AND model = :model))
ORDER BY number
"""


def old(file: Path, model: str, *, before: float, delete: bool) -> int:
    """Bytes of pages of a model that were written before a moment and that nobody waits for.

    A page that waits, and each page of an episode that is not resolved, is kept.

    Parameters
    ----------
    file : Path
        The outbox.
    model : str
        Name of the model.
    before : float
        The moment, in seconds since 1970; a page of the last week is kept, however late it is.
    delete : bool
        Whether to delete them.
    """
    if not file.exists():
        return 0
    with transaction(file) as outbox:
        found = outbox.execute(_OLD, (model, before)).fetchall()
        episodes = {row["episode"] for row in found if row["episode"]}
        kept = {page["number"] for name in episodes for page in open_pages(outbox, model, name)}
        gone = [row for row in found if row["number"] not in kept]
        for row in gone if delete else ():
            outbox.execute("DELETE FROM sends WHERE page = ?", (row["number"],))
            outbox.execute("DELETE FROM pages WHERE number = ?", (row["number"],))
    return sum(row["size"] for row in gone)


_OLD: Final = """
SELECT number, episode, length(subject) + length(body) AS size FROM pages
WHERE model = ? AND written < ? AND NOT EXISTS
  (SELECT 1 FROM sends WHERE page = number AND state NOT IN ('accepted', 'given up'))
"""
