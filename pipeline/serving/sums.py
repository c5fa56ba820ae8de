"""Metrics of several workers, summed in whichever of them Prometheus asks.

Each worker keeps its page in a file, and the one that is asked adds up all of them. A worker that
takes the place of one that ended begins with its counts, since a sum that falls looks to
Prometheus like a restart of all.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_LEAST = {"holdfast_registry_up", "process_max_fds", "process_start_time_seconds"}
_SUMMED = {"process_open_fds", "process_resident_memory_bytes", "process_virtual_memory_bytes"}
"""Gauges of which a server has the least or the sum of its workers'; of others the greatest."""


class Sums:
    """The pages of all workers.

    Parameters
    ----------
    file : Path
        This worker's page; the others' are beside it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before = _counts(file.read_text()) if file.exists() else ""

    def write(self, page: bytes) -> None:
        """Keep the page of this worker, with the counts of those whose place it took."""
        whole = summed([self._before, page.decode()]) if self._before else page
        partial = self._file.with_suffix(".part")
        partial.write_bytes(whole)
        partial.replace(self._file)

    def page(self) -> bytes:
        """The sum of all pages as they were written last."""
        return summed([file.read_text() for file in sorted(self._file.parent.glob("*.prom"))])


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def summed(pages: Iterable[str]) -> bytes:
    """Add up pages of metrics in Prometheus's text format."""
    found: dict[str, list[Metric]] = defaultdict(list)
    for page in pages:
        for family in text_string_to_metric_families(page):
            found[family.name].append(family)
    return _written(map(_together, found.values()))


def _counts(page: str) -> str:
    """The counters and histograms of a page: what outlives its worker."""
    families = text_string_to_metric_families(page)
    return _written(one for one in families if one.type in {"counter", "histogram"}).decode()


def _written(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


def _together(families: Sequence[Metric]) -> Metric:
    """One family of the same family of several pages."""
    first = families[0]
    whole = Metric(first.name, first.documentation, first.type)
    given: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = defaultdict(list)
    bounds = sorted({bound for family in families for bound in _buckets(family)}, key=float)
    for family in families:
        buckets, reached = _buckets(family), 0.0
        for bound in bounds:  # versions may differ in theirs: a bucket holds what is surely in it
            reached = buckets.get(bound, reached)
            given[f"{first.name}_bucket", (("le", bound),)].append(reached)
        for sample in family.samples:
            if "le" not in sample.labels:
                given[sample.name, tuple(sample.labels.items())].append(sample.value)
    adds_up = first.type in {"counter", "histogram"} or first.name in _SUMMED
    combine = math.fsum if adds_up else min if first.name in _LEAST else max
    for (name, labels), values in given.items():
        whole.add_sample(name, dict(labels), combine(values))
    return whole


def _buckets(family: Metric) -> Mapping[str, float]:
    """Counts at or below each bound of a histogram without labels of its own."""
    return {one.labels["le"]: one.value for one in family.samples if "le" in one.labels}
