import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.serving.follower import ServingState
from pipeline.serving.metrics import Histogram, Metrics
from pipeline.serving.served_version import Predicted
from pipeline.serving.sums import Sums, summed

HISTOGRAM = """# HELP p Predictions.
# TYPE p histogram
p_bucket{{le="{bound}"}} {below}
p_bucket{{le="+Inf"}} {n}
p_count {n}
p_sum {total}
"""


def samples(page):
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


def worker(folder, place, state=None):
    return Metrics(state or ServingState(), None, Sums(folder / f"{place}.prom"))


def test_whichever_worker_is_asked_gives_the_sum_of_all(tmp_path):
    first, second = worker(tmp_path, 0), worker(tmp_path, 1)
    for metrics, n in ((first, 2), (second, 3)):
        for _ in range(n):
            metrics.answered("/predict", 200)
        metrics.share()

    for metrics in (first, second):
        assert samples(metrics.page())["holdfast_requests_total", "/predict", "200"] == 5


def test_a_sum_never_falls_from_one_page_to_the_next(tmp_path):
    first, second = worker(tmp_path, 0), worker(tmp_path, 1)
    second.share()
    first.answered("/predict", 200)

    pages = [samples(one.page()) for one in (first, second, first)]
    seen = [page["holdfast_requests_total", "/predict", "200"] for page in pages]

    assert seen == [1, 1, 1]


def test_a_worker_that_takes_the_place_of_another_goes_on_with_its_counts(tmp_path, state):
    lost, other = worker(tmp_path, 0, state), worker(tmp_path, 1)
    predicted = Predicted(np.array([0.25, 0.75]), np.zeros((2, 4)), [], {"temp": 1})
    lost.predicted(state.served, predicted, 0.002)
    lost.share()

    for _ in range(2):  # the second is the place's third worker
        new = worker(tmp_path, 0)
        new.predicted(state.served, predicted, 0.002)
        new.share()

    page = samples(other.page())
    assert page["holdfast_rows_total",] == 6
    assert page["holdfast_outside_rows_total", "temp"] == 3
    assert page["holdfast_predict_seconds_count",] == 3
    assert ("holdfast_champion_info", "flights", "3") not in page


def test_a_page_of_one_worker_is_that_of_a_server_without_workers(tmp_path, state):
    alone, one = Metrics(state, None), worker(tmp_path, 0, state)
    for metrics in (alone, one):
        metrics.answered("/live", 200)

    def own(metrics):
        names = ("process_", "holdfast_last_success", "holdfast_champion_age")  # they move
        return {
            key: n for key, n in samples(metrics.page()).items() if not key[0].startswith(names)
        }

    assert own(one) == own(alone)


def test_gauges_of_workers_are_the_worst_of_them():
    pages = [
        f"# TYPE holdfast_capture_failing gauge\nholdfast_capture_failing {failing}\n"
        f"# TYPE holdfast_registry_up gauge\nholdfast_registry_up {up}\n"
        f"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {memory}\n"
        for failing, up, memory in ((0, 1, 100), (1, 0, 200))
    ]

    assert samples(summed(pages)) == {
        ("holdfast_capture_failing",): 1,
        ("holdfast_registry_up",): 0,
        ("process_resident_memory_bytes",): 300,
    }


def test_buckets_of_versions_with_other_bounds_hold_what_is_surely_in_them():
    pages = [
        HISTOGRAM.format(bound="1.0", below=3, n=4, total=5.5),
        HISTOGRAM.format(bound="2.0", below=6, n=7, total=8.0),
    ]

    assert samples(summed(pages)) == {
        ("p_bucket", "1.0"): 3,
        ("p_bucket", "2.0"): 9,
        ("p_bucket", "+Inf"): 11,
        ("p_count",): 11,
        ("p_sum",): 13.5,
    }


@pytest.mark.parametrize("n", [1, 2, 5])
def test_buckets_add_up_to_those_of_one_histogram_of_all_values(n):
    values, bounds = np.random.default_rng(0).normal(size=1_000), [-1.0, 0.0, 1.0]
    pages = []
    for part in (values, *np.array_split(values, n)):
        histogram = Histogram(bounds)
        histogram.add(part)
        buckets, total = histogram.buckets()
        lines = [f'p_bucket{{le="{bound}"}} {count}' for bound, count in buckets]
        pages.append("\n".join(["# TYPE p histogram", *lines, f"p_sum {total}", ""]))

    whole, parts = samples(summed(pages[:1])), samples(summed(pages[1:]))

    assert parts == pytest.approx(whole)
