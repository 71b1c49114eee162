"""Prometheus metrics: families consensus, mempool, p2p, audit, storage, rpc, process.

The node hands over plain figures at each scrape (`NodeApi.metrics`): `{"consensus_height": 12,
"p2p_messages_total": {"vote": 3}, "consensus_finality_seconds": LatencyHistogram}`. A name is
`<family>_<what>[_<unit>][_total]`; `_total` makes it a counter, a mapping gives one sample a
`kind`. All come out with the prefix `zynk_`. The server's own figures are counted here. The
registry is this object's own, so that several nodes live in one process.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_BOUNDS_S = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
CALL_BOUNDS_S = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
KINDS_MAX = 64
_SERVER_COUNTS = frozenset(
    f"process_{what}"
    for what in (
        "virtual_memory_bytes",
        "resident_memory_bytes",
        "start_time_seconds",
        "cpu_seconds_total",
        "open_fds",
        "max_fds",
    )
)
"""Counted here already; a name that comes twice makes a scrape fail."""
_NAME = re.compile(r"(consensus|mempool|p2p|audit|storage|rpc|process)_[a-z0-9_]{1,60}")


class LatencyHistogram:
    """Durations in seconds, counted in buckets; cheap enough for every block and tx."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds_s: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self._bounds = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """(cumulative counts by upper bound, the sum of all), as Prometheus wants them."""
        found, running = [], 0
        bounds = [*map(str, self._bounds), "+Inf"]
        for bound, count in zip(bounds, self._counts, strict=True):
            running += count
            found.append((bound, float(running)))
        return found, self._sum


MetricValue = float | Mapping[str, float] | LatencyHistogram


class RpcMetrics:
    """The registry, the node's figures and the server's own."""

    def __init__(self, node_figures: Callable[[], Mapping[str, MetricValue]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_NodeCollector(node_figures))
        ProcessCollector(namespace="zynk", registry=self._registry)
        self.calls = Counter(
            "zynk_rpc_calls", "Calls answered, by method.", ["method"], registry=self._registry
        )
        self.errors = Counter(
            "zynk_rpc_errors", "Errors answered, by code.", ["code"], registry=self._registry
        )
        self.call_seconds = Histogram(
            "zynk_rpc_call_seconds",
            "Time to answer a call, by method.",
            ["method"],
            buckets=CALL_BOUNDS_S,
            registry=self._registry,
        )
        self.connections = Gauge(
            "zynk_rpc_connections", "Open TCP connections.", registry=self._registry
        )
        self.connections_refused = Counter(
            "zynk_rpc_connections_refused",
            "Connections over a limit.",
            registry=self._registry,
        )
        self.subscribers = Gauge(
            "zynk_rpc_subscribers", "Open WebSockets.", registry=self._registry
        )
        self.subscribers_dropped = Counter(
            "zynk_rpc_subscribers_dropped",
            "WebSockets closed for reading too slowly.",
            registry=self._registry,
        )

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self._registry)


class _NodeCollector(Collector):
    def __init__(self, figures: Callable[[], Mapping[str, MetricValue]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, value in self._figures().items():
            if not _NAME.fullmatch(name) or name in _SERVER_COUNTS:
                continue
            yield _family(name, value)


def _family(name: str, value: MetricValue) -> Metric:
    full = f"zynk_{name}"
    text = f"{name.replace('_', ' ')}; see docs/rpc.md, Metrics."
    if isinstance(value, LatencyHistogram):
        buckets, total = value.buckets()
        return HistogramMetricFamily(full, text, buckets=buckets, sum_value=total)
    make = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    if isinstance(value, Mapping):
        family = make(full, text, labels=["kind"])
        for kind, number in list(value.items())[:KINDS_MAX]:
            family.add_metric([kind], float(number))
        return family
    return make(full, text, value=float(value))
