"""What people see in MLflow and Prefect, in a real browser over real servers."""

import io
import json
import re
import urllib.request

import pytest
from PIL import Image

from pipeline.reporting.wording import STATES

pytestmark = pytest.mark.browser

WORDS = tuple(f"{word}." for word in STATES.values())
LOOKS = [(529, "light"), (529, "dark"), (360, "light"), (360, "dark")]
"""Widths of MLflow's frame and of a phone, in pixels, and what the reader's system prefers."""
REPORTS = {"sound": "quiet", "broken": "broken", "lost": "worse"}
"""Batches of the shop, by their tag `state`."""
PAGES = [*REPORTS, "spend", "next-plan", "card-shop", "card-spend", "card-next-plan", "history"]
CLASSIC = "?workflowType=machine_learning"
OF_MLFLOW = "/ajax-api/2.0/mlflow/users/current"
"""MLflow asks who is logged in, and its server without accounts answers 404."""
OF_PREFECT = ("/favicon.ico", "/ico/undefined.svg")
"""Icons that Prefect's page asks for and its server lacks."""


@pytest.fixture(scope="session")
def places(store):
    """Run, artifact and file of each page."""
    found = {"history": (None, None, store.folder / "state" / "history-shop.html")}
    for name in ("shop", "spend", "next-plan"):
        for run in runs_of(store, name):
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            folder = run["info"]["artifact_uri"].removeprefix("file://")
            kind, page = tags.get("kind"), name
            if kind == "batch":
                if name == "shop":
                    page = {state: page for page, state in REPORTS.items()}.get(tags["state"])
                found[page] = (run["info"], "report.html", f"{folder}/report.html")
            elif kind == "training":
                found[f"card-{name}"] = (run["info"], "card.html", f"{folder}/card.html")
    return found


def asked(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 -- http
    with urllib.request.urlopen(request) as answer:  # noqa: S310 -- http, local
        return json.load(answer)


def runs_of(store, name):
    api = f"{store.mlflow}/api/2.0/mlflow"
    found = asked(f"{api}/experiments/get-by-name?experiment_name={name}")
    body = {"experiment_ids": [found["experiment"]["experiment_id"]], "max_results": 100}
    return asked(f"{api}/runs/search", body)["runs"]


def flow_runs(store):
    return {run["name"]: run for run in asked(f"{store.prefect}/api/flow_runs/filter", {})}


def is_verdict(name, heading):
    if name.startswith("card-"):
        return re.match(r"[\w-]+, version \d\. It (passed|did not pass) the gate", heading)
    if name == "history":
        return heading.startswith("shop: batches judged 6, retrains ")
    return heading.startswith(WORDS)


def boxes(page):
    """Places of the drawings of a page that are not folded away."""
    script = """all => all.filter(one => one.checkVisibility()).map(one => {
        const box = one.getBoundingClientRect();
        return [box.left, box.top + scrollY, box.right, box.bottom + scrollY];
    })"""
    return page.eval_on_selector_all("svg[role=img]", script)


def is_drawn(picture, box):
    left, top, right, bottom = box
    part = picture.crop((int(left), int(top), int(right) + 1, int(bottom) + 1))
    return right - left > 10 and bottom - top > 10 and len(part.getcolors(1 << 16)) > 1


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_wherever_it_is_read(places, open_tab, name, width, scheme):
    address = f"file://{places[name][2]}"
    look = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    tab = open_tab(address, **look)

    tab.page.goto(address)
    picture = Image.open(io.BytesIO(tab.keep(f"{name}-{width}-{scheme}"))).convert("RGB")

    first = tab.page.locator("main").inner_text().strip().splitlines()[0]
    drawn = boxes(tab.page)
    assert is_verdict(name, first), first
    assert drawn
    assert all(is_drawn(picture, box) for box in drawn)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.faults() == []
    assert (tab.errors, tab.left) == ([], [])


@pytest.mark.parametrize("name", PAGES)
def test_a_printed_page_has_its_verdict_and_all_of_its_width(places, open_tab, name):
    address = f"file://{places[name][2]}"
    tab = open_tab(address, viewport={"width": 718, "height": 1000})  # A4 within its margins

    tab.page.goto(address)
    tab.page.emulate_media(media="print")
    tab.keep(f"{name}-print")

    assert tab.page.locator("h1").is_visible()
    assert is_verdict(name, tab.page.locator("h1").inner_text().strip())
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 718


@pytest.mark.parametrize("name", [name for name in PAGES if name != "history"])
def test_mlflow_shows_a_page_in_its_frame(store, places, open_tab, name):
    run, artifact, _ = places[name]
    tab = open_tab(store.mlflow, viewport={"width": 1280, "height": 900})

    where = f"#/experiments/{run['experiment_id']}/runs/{run['run_id']}/artifacts/{artifact}"
    tab.page.goto(f"{store.mlflow}/{where}{CLASSIC}")
    heading = tab.page.frame_locator("iframe").locator("h1")
    heading.wait_for()
    tab.keep(f"{name}-in-mlflow")

    frame = tab.page.frames[-1]
    assert is_verdict(name, heading.inner_text().strip())
    assert boxes(frame)
    assert tab.faults(frame) == []
    assert [error for error in tab.errors if OF_MLFLOW not in error] == []
    assert tab.left == []


def test_mlflow_names_runs_and_says_who_is_champion(store, places, open_tab):
    run, _, _ = places["broken"]
    tab = open_tab(store.mlflow, viewport={"width": 1600, "height": 1000})
    seen = {
        "runs": (f"experiments/{run['experiment_id']}/runs", r"monitoring of version 1"),
        "run": (f"experiments/{run['experiment_id']}/runs/{run['run_id']}", r"Broken\."),
        "model": ("models/shop", r"Version \d is the champion"),
        "version": ("models/shop/versions/1", r"The gain over the baseline is"),
    }

    for name, (place, words) in seen.items():
        tab.page.goto(f"{store.mlflow}/#/{place}{CLASSIC}")
        tab.page.get_by_text(re.compile(words)).first.wait_for()
        tab.keep(f"mlflow-{name}")

    assert [error for error in tab.errors if OF_MLFLOW not in error] == []
    assert tab.left == []


def test_prefect_says_what_a_run_found_and_leads_to_mlflow(store, open_tab):
    run = flow_runs(store)["monitor shop 2026-02-23T00:00"]
    (note,) = [
        one
        for one in asked(f"{store.prefect}/api/artifacts/filter", {})
        if one["flow_run_id"] == run["id"] and one["type"] == "markdown"
    ]
    tab = open_tab(store.prefect, store.mlflow, viewport={"width": 1280, "height": 900})

    tab.page.goto(f"{store.prefect}/runs/flow-run/{run['id']}")
    tab.page.get_by_text(re.compile("Broken: ")).first.wait_for()
    tab.keep("prefect-run")
    tab.page.goto(f"{store.prefect}/artifacts/artifact/{note['id']}")
    tab.page.get_by_text(re.compile("holdfast review")).first.wait_for()
    tab.keep("prefect-artifact")
    with tab.context.expect_page() as opened:
        tab.page.get_by_role("link", name="MLflow").click()
    heading = opened.value.frame_locator("iframe").locator("h1")
    heading.wait_for()
    assert heading.inner_text().strip().startswith("Broken.")

    assert [e for e in tab.errors if OF_MLFLOW not in e and not e.endswith(OF_PREFECT)] == []
    assert tab.left == []


def test_prefect_shows_an_expected_error_as_a_sentence(store, open_tab):
    run = flow_runs(store)["train none"]
    tab = open_tab(store.prefect, viewport={"width": 1280, "height": 1400})

    tab.page.goto(f"{store.prefect}/runs/flow-run/{run['id']}")
    tab.page.get_by_text(re.compile("No file matches")).first.wait_for()
    tab.keep("prefect-failed")

    assert "Traceback" not in tab.page.locator("body").inner_text()
