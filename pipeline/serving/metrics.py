"""Metrics for Prometheus: counted in arrays at each request, written out when it scrapes."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from http import HTTPStatus

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState
from pipeline.serving.problems import Problem
from pipeline.serving.served_version import Predicted, ServedVersion
from pipeline.serving.sums import Sums
from pipeline.training.model import Predictions

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
CONFIDENCES = tuple(np.arange(55, 105, 5) / 100)
TOGETHER = 256
"""Requests whose values are counted together."""
UNDECLARED = "(undeclared)"
"""Counts for all undeclared columns together, because callers can invent any number of names."""


class Histogram:
    """Counts of values at or below each bound.

    Parameters
    ----------
    bounds : array-like of float
        Upper bounds, rising; one more bucket counts values above all of them.
    """

    def __init__(self, bounds: Sequence[float] | NDArray[np.float64]) -> None:
        self._bounds = np.array(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1)
        self._sum = 0.0
        self._waiting: list[ArrayLike] = []

    def add(self, values: ArrayLike) -> None:
        """Take values, shape (n,), to be counted later: many cost hardly more than one."""
        self._waiting.append(values)
        if len(self._waiting) == TOGETHER:
            self._count()

    def _count(self) -> None:
        if self._waiting:
            values = np.concatenate(self._waiting)
            places = self._bounds.searchsorted(values)
            self._counts += np.bincount(places, minlength=len(self._counts))
            self._sum += float(values.sum())
            self._waiting = []

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, as Prometheus wants them, and the sum of values."""
        self._count()
        names = [*map(str, self._bounds.tolist()), "+Inf"]
        return list(zip(names, self._counts.cumsum().tolist(), strict=True)), self._sum


class Metrics(Collector):
    """All metrics of a server; only one thread may count.

    Parameters
    ----------
    state : ServingState
        Holds the version that answers.
    captures : Captures or None
        Where answers are stored, if they are.
    sums : Sums or None
        The metrics of all workers, where this server is one of several.
    """

    def __init__(
        self, state: ServingState, captures: Captures | None, sums: Sums | None = None
    ) -> None:
        self._state, self._captures, self._sums = state, captures, sums
        self._answers: Counter[tuple[str, int]] = Counter()
        self._succeeded = {"/predict": time.time()}
        self._refused: Counter[tuple[str, str]] = Counter()
        self._seconds = Histogram(SECONDS)
        self._rows = 0
        self._outside: Counter[str] = Counter()
        self._predictions: Histogram | None = None
        self._confidences: Histogram | None = None
        self._classes: Counter[str] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """All metrics in the text format that Prometheus scrapes."""
        if self._sums is None:
            return generate_latest(self._registry)
        self.share()
        return self._sums.page()

    def share(self) -> None:
        """Let other workers add up these metrics with theirs, as of now."""
        if self._sums is not None:
            self._sums.write(generate_latest(self._registry))

    def answered(self, route: str, status: int) -> None:
        """Count an answer by route and status."""
        self._answers[route, status] += 1
        if status < HTTPStatus.BAD_REQUEST:
            self._succeeded[route] = time.time()

    def predicted(self, served: ServedVersion, predicted: Predicted, seconds: float) -> None:
        """Count a request with predicted rows, and the seconds it took."""
        predictions = predicted.predictions
        self._seconds.add([seconds])
        self._rows += len(predictions)
        for name, n in predicted.outside.items():
            self._outside[name] += n
        if predictions.ndim > 1:
            self._count_classes(served, predictions)
            return
        if self._predictions is None:
            self._predictions = Histogram(served.steps)
        self._predictions.add(predictions)
        if served.model.task == "classification":
            self._confidences = self._confidences or Histogram(CONFIDENCES)
            self._confidences.add(np.maximum(predictions, 1 - predictions))

    def _count_classes(self, served: ServedVersion, predictions: Predictions) -> None:
        """Count the likeliest of three or more classes, and how likely it is."""
        for place in predictions.argmax(axis=1).tolist():
            self._classes[served.model.classes[place]] += 1
        self._confidences = self._confidences or Histogram(served.steps)
        self._confidences.add(predictions.max(axis=1))

    def refused(self, served: ServedVersion, problems: Iterable[Problem]) -> None:
        """Count each problem of a refused request."""
        for problem in problems:
            declared = problem.column is None or problem.column in served.model.columns
            column = (problem.column or "") if declared else UNDECLARED
            self._refused[column, problem.code] += 1

    def collect(self) -> Iterable[Metric]:
        """All metrics as of now, for the Prometheus client."""
        yield from self._requests()
        yield from self._values()
        yield from self._served_version()

    def _requests(self) -> Iterable[Metric]:
        total = CounterMetricFamily(
            "holdfast_requests", "Requests by route and status.", labels=["route", "status"]
        )
        for (route, status), n in self._answers.items():
            total.add_metric([route, str(status)], n)
        yield total
        last = GaugeMetricFamily(
            "holdfast_last_success_seconds",
            "Last success by route (Unix); before the first prediction, the start of the server.",
            labels=["route"],
        )
        for route, moment in self._succeeded.items():
            last.add_metric([route], moment)
        yield last
        buckets, total_seconds = self._seconds.buckets()
        yield HistogramMetricFamily(
            "holdfast_predict_seconds",
            "Time from a request to its predictions.",
            buckets=buckets,
            sum_value=total_seconds,
        )
        problems = CounterMetricFamily(
            "holdfast_refused_problems",
            "Problems of refused requests by column and rule.",
            labels=["column", "rule"],
        )
        for (column, rule), n in self._refused.items():
            problems.add_metric([column, rule], n)
        yield problems

    def _values(self) -> Iterable[Metric]:
        yield CounterMetricFamily("holdfast_rows", "Rows that were predicted.", value=self._rows)
        outside = CounterMetricFamily(
            "holdfast_outside_rows",
            "Rows outside the range of the training rows, or with a label unseen in training.",
            labels=["column"],
        )
        for name, n in self._outside.items():
            outside.add_metric([name], n)
        yield outside
        if self._classes:
            classes = CounterMetricFamily(
                "holdfast_predicted_class_rows", "Rows by their likeliest class.", labels=["class"]
            )
            for name, n in self._classes.items():
                classes.add_metric([name], n)
            yield classes
        for name, text, histogram in (
            ("prediction", "Predictions.", self._predictions),
            ("confidence", "Probability of the likeliest class.", self._confidences),
        ):
            if histogram is not None:
                buckets, total = histogram.buckets()
                yield HistogramMetricFamily(
                    f"holdfast_{name}", text, buckets=buckets, sum_value=total
                )

    def _served_version(self) -> Iterable[Metric]:
        state, served = self._state, self._state.served
        if served is not None:
            info = {"name": served.name, "version": served.version}
            yield InfoMetricFamily("holdfast_champion", "The served version.", value=info)
            yield from _training_means(served)
        for name, text, value in (
            ("champion_loaded_seconds", "When the served version was loaded (Unix).", state.since),
            ("champion_age_seconds", "Since the served version's training window.", _age(served)),
            ("monitored_seconds", "When the monitor last ran to its end (Unix).", state.monitored),
            ("registry_up", "Whether the registry answered when last asked.", state.reachable),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"holdfast_{name}", text, value=float(value))
        for name, text, count in (
            ("champion_swaps", "Champions that replaced a served version.", state.swaps),
            ("champion_refusals", "Champions that were refused and not served.", state.refusals),
        ):
            yield CounterMetricFamily(f"holdfast_{name}", text, value=count)
        if self._captures is not None:
            yield from _capture_metrics(self._captures)


def _capture_metrics(captures: Captures) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "holdfast_capture_lag_seconds", "Age of the oldest unwritten request.", value=captures.lag
    )
    yield GaugeMetricFamily(
        "holdfast_capture_failing",
        "Whether the last write failed.",
        value=float(bool(captures.problem)),
    )
    yield GaugeMetricFamily(
        "holdfast_capture_bytes", "Size of the file of captures.", value=captures.size
    )
    yield CounterMetricFamily(
        "holdfast_capture_deleted_requests",
        "Requests that were deleted before their time, because the file was full.",
        value=captures.deleted,
    )
    yield CounterMetricFamily(
        "holdfast_capture_lost_requests", "Requests that were not stored.", value=captures.lost
    )


def _training_means(served: ServedVersion) -> Iterable[Metric]:
    """Means over the rows of training, such as that of predictions, for alert rules."""
    mean = GaugeMetricFamily(
        "holdfast_training_mean", "Mean over the training rows, by what it is of.", labels=["of"]
    )
    deviation = GaugeMetricFamily(
        "holdfast_training_deviation",
        "Standard deviation of such means over sevenths of a batch.",
        labels=["of"],
    )
    for name, (middle, spread) in served.training_means.items():
        mean.add_metric([name], middle)
        deviation.add_metric([name], spread)
    yield from (mean, deviation)


def _age(served: ServedVersion | None) -> float | None:
    if served is None or not served.trained_until:
        return None
    return time.time() - pd.Timestamp(served.trained_until, tz="UTC").timestamp()
