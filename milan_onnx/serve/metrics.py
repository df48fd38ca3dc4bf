"""What Prometheus is told: a registry an app, and labels that a client cannot invent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

UNMATCHED = "unmatched"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "milan_onnx_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "milan_onnx_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route", "method"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "milan_onnx_requests_in_flight", "Requests being answered.", registry=registry
        )
        self.queue_units = Gauge(
            "milan_onnx_queue_units",
            "Units admitted and not yet in a batch.",
            registry=registry,
        )
        self.batch_units = Histogram(
            "milan_onnx_batch_units", "Units of a batch.", buckets=SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "milan_onnx_batch_seconds",
            "Seconds that a batch takes.",
            buckets=SECONDS,
            registry=registry,
        )
        self.units = Counter("milan_onnx_units", "Units done.", ["work"], registry=registry)
        self.images = Counter(
            "milan_onnx_images",
            "Distinct images of batches, by where their feature maps came from.",
            ["maps"],
            registry=registry,
        )
        self.rejected = Counter(
            "milan_onnx_rejected",
            "Requests refused for too much at once.",
            ["why"],
            registry=registry,
        )
        self.dropped = Counter(
            "milan_onnx_dropped_units",
            "Units whose client had gone or whose time was up.",
            ["why"],
            registry=registry,
        )

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
