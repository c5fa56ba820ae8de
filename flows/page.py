"""Look after pages: list those that were not delivered, and try the addresses."""

from typing import Any

from flows.paging import pager_of
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.reporting import delivery, written_pages
from pipeline.reporting.pages import name_of, service_of


def page(conf: str, *, test: bool = False, since: str = "") -> dict[str, Any]:
    """Send what waits and list what is not delivered, or send a test page to every address.

    Parameters
    ----------
    conf : str
        The model's YAML file.
    test : bool
        Whether to send a test page instead.
    since : str
        Id of a page from which on all pages are listed; empty: those that are not delivered.

    Returns
    -------
    dict
        ``undelivered`` pages, or ``pages``, with the state of each address, or the ``addresses`` of
        a test, each with ``took`` and ``why``.

    Raises
    ------
    ConfigError
        If a test page is asked for and there is no address, or no page has the id.
    """
    pager = pager_of(Settings.load(conf))
    urls = [route.url.get_secret_value() for route in pager.alerts.all_routes]
    names = {name_of(url): f"{place}. {service_of(url)}" for place, url in enumerate(urls, start=1)}
    if test and not urls:
        message = (
            "alerts.urls must hold an address to test. Got none. Set HOLDFAST__ALERTS__URLS to a "
            "JSON list of Apprise addresses."
        )
        raise ConfigError(message)
    if test:
        became = zip(names.values(), delivery.send_test(pager), strict=True)
        return {
            "addresses": [
                {"address": name, "took": outcome == "accepted", "why": why}
                for name, (outcome, why) in became
            ]
        }
    delivery.deliver(pager)
    if not since:
        found = written_pages.undelivered(pager.file, pager.model)
        return {"undelivered": [_shown(one, names) for one in found]}
    found = written_pages.since(pager.file, pager.model, since)
    if not found:
        message = (
            f"since must be the id of a page of {pager.model}. Got {since!r}. A page ends with its "
            "id, and a summary names the id of each page in brackets."
        )
        raise ConfigError(message)
    return {"pages": [_shown(one, names) for one in found]}


def _shown(one: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    unknown = "an address that is not configured any more"
    sends = [sent | {"address": names.get(sent["address"], unknown)} for sent in one["sends"]]
    return one | {"sends": sends}
