"""What the admin port tells Prometheus. One object a server; nothing is registered globally."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """Counters of one server. Other rooms' gauges may be registered on ``registry`` too."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("innerloop_requests", "Finished rpcs by code", ["rpc", "code"], registry=self.registry)
        self.seconds = Histogram(
            "innerloop_request_seconds",
            "From the first layer to the last; streams count whole",
            ["rpc"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.streams = Gauge("innerloop_streams_open", "Streams open now", ["rpc"], registry=self.registry)
