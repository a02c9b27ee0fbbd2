"""What is counted, under the names of text-generation-inference, for Prometheus."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
SIZES = tuple(4.0**n for n in range(10))
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of a service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"tgi_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"tgi_{name}", what, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"tgi_{name}", what, registry=registry, buckets=buckets)

        self.requests = counter("request_count", "requests")
        self.successes = counter("request_success", "requests that were answered")
        self.failures = counter("request_failure", "requests that were not answered", ("err",))
        self.duration = histogram("request_duration", "seconds of a request")
        self.validation = histogram("request_validation_duration", "seconds of reading inputs")
        self.queue_duration = histogram("request_queue_duration", "seconds of waiting")
        self.inference = histogram("request_inference_duration", "seconds in the model")
        self.input_length = histogram("request_input_length", "tokens of a request", SIZES)
        self.generated = histogram("request_generated_tokens", "tokens of an answer", SIZES)
        self.queue_size = gauge("queue_size", "inputs that wait")
        self.batch_size = gauge("batch_current_size", "inputs that the model sees now")
        self.batch_tokens = gauge("batch_current_max_tokens", "tokens that the model sees now")
        self.batch_count = counter("batch_inference_count", "batches")
        self.batch_success = counter("batch_inference_success", "batches that were computed")
        self.batch_duration = histogram("batch_inference_duration", "seconds of a batch")

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        # the client adds _total to counters and a time of creation, and dashboards made for
        # text-generation-inference ask for names without
        lines = re.sub(rb"(?m)^(# \w+ )?tgi_\w+_created\b.*\n", b"", generate_latest(self.registry))
        return re.sub(rb"\b(tgi_\w+)_total\b", rb"\1", lines)
