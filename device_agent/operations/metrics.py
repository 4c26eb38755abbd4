"""Counters and histograms for Prometheus, in a registry of the agent's own.

Names begin with `edgekit_` and follow Prometheus's conventions; where llama.cpp's server counts the same, the help
says under which name. Labels are bounded: models are those of the store, routes those of the program. Gauges of models
and of the machine are read when somebody asks (`readings`).
"""

import time
from collections.abc import Callable, Iterable, Sequence

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from device_agent.http.services import Served

FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PER_TOKEN_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
REQUEST_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
RESPONSE_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0)

Readings = Callable[[], Iterable[Metric]]
"""Reads gauges and counters that somebody else keeps."""


class Metrics:
    """Implements `Book`; `exposition` writes everything down."""

    def __init__(self, readings: Readings) -> None:
        model = ("model",)
        self._requests = Counter(
            "edgekit_requests", "Requests that used a model, by how they ended.", (*model, "finish"), registry=None
        )
        self._prompt = Counter(
            "edgekit_prompt_tokens", "Prompt tokens read (llama.cpp: prompt_tokens_total).", model, registry=None
        )
        self._cached = Counter(
            "edgekit_cached_tokens", "Prompt tokens that were known and not read again.", model, registry=None
        )
        self._prompt_s = Counter(
            "edgekit_prompt_seconds",
            "Seconds from a request's arrival to its first token, waiting included (llama.cpp: prompt_seconds_total).",
            model,
            registry=None,
        )
        self._generated = Counter(
            "edgekit_generated_tokens",
            "Tokens generated (llama.cpp: tokens_predicted_total).",
            model,
            registry=None,
        )
        self._generated_s = Counter(
            "edgekit_generated_seconds",
            "Seconds from first tokens to the ends of answers (llama.cpp: tokens_predicted_seconds_total).",
            model,
            registry=None,
        )
        self._longest = Gauge(
            "edgekit_tokens_max",
            "The longest prompt with its answer so far, in tokens (llama.cpp: n_tokens_max).",
            model,
            registry=None,
        )
        self._first = Histogram(
            "edgekit_time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            model,
            buckets=FIRST_TOKEN_BUCKETS,
            registry=None,
        )
        self._each = Histogram(
            "edgekit_time_per_output_token_seconds",
            "Mean time between the tokens of an answer.",
            model,
            buckets=PER_TOKEN_BUCKETS,
            registry=None,
        )
        self._whole = Histogram(
            "edgekit_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            model,
            buckets=REQUEST_BUCKETS,
            registry=None,
        )
        self._responses = Counter(
            "edgekit_http_responses", "Responses, by route.", ("route", "method", "status"), registry=None
        )
        self._response_s = Histogram(
            "edgekit_http_response_duration_seconds",
            "From a request's first line to the last byte of its response.",
            ("route",),
            buckets=RESPONSE_BUCKETS,
            registry=None,
        )
        self._longest_seen: dict[str, int] = {}
        self.registry = CollectorRegistry()
        kept = [value for value in vars(self).values() if isinstance(value, MetricWrapperBase)]
        self.registry.register(_Asked(kept, readings))

    def note(self, served: Served) -> None:
        """Count a request."""
        model = served.model
        self._requests.labels(model, served.finish).inc()
        self._prompt.labels(model).inc(max(0, served.input_tokens - served.cached_tokens))
        self._cached.labels(model).inc(served.cached_tokens)
        self._generated.labels(model).inc(served.output_tokens)
        self._whole.labels(model).observe(served.total_s)
        self._note_longest(model, served.input_tokens + served.output_tokens)
        if served.first_token_s is None:
            return
        after_s = max(0.0, served.total_s - served.first_token_s)
        self._prompt_s.labels(model).inc(served.first_token_s)
        self._generated_s.labels(model).inc(after_s)
        self._first.labels(model).observe(served.first_token_s)
        if served.output_tokens > 1:
            self._each.labels(model).observe(after_s / (served.output_tokens - 1))

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count a response."""
        self._responses.labels(route, method, str(status)).inc()
        self._response_s.labels(route).observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that an Accept header asks for, and its media type."""
        encoder, media_type = choose_encoder(accept)
        return encoder(self.registry), media_type

    def _note_longest(self, model: str, tokens: int) -> None:
        # Two requests that end together may leave the smaller one; the next longer one puts it right.
        if tokens > self._longest_seen.get(model, -1):
            self._longest_seen[model] = tokens
            self._longest.labels(model).set(tokens)


class _Asked(Collector):
    """What was counted, and what is read when somebody asks.

    Without the moments when counters were made, which would be a third of all lines.
    """

    def __init__(self, kept: Sequence[Collector], readings: Readings) -> None:
        self._kept = kept
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        for metric in self._kept:
            for family in metric.collect():
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
                yield family
        yield from self._readings()

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are told with the values, and to read them now would ask too early."""
        return ()


def gauge(name: str, told: str, value: float | None) -> list[Metric]:
    """One value without labels; nothing if it is not known."""
    return [] if value is None else [GaugeMetricFamily(name, told, value=value)]


def by_label(name: str, told: str, label: str, values: Iterable[tuple[str, float]], *, counts: bool = False) -> Metric:
    """A value for each name; `counts` if it only ever grows."""
    kind = CounterMetricFamily if counts else GaugeMetricFamily
    family = kind(name, told, labels=(label,))
    for found, value in values:
        family.add_metric((found,), value)
    return family


def process_readings(now: Callable[[], float] = time.time) -> Iterable[Metric]:
    """Of this process, under the names that Prometheus's own libraries use."""
    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        yield from gauge("process_resident_memory_bytes", "Resident memory.", process.memory_info().rss)
        yield from gauge("process_start_time_seconds", "Start, in Unix seconds.", min(process.create_time(), now()))
        yield from gauge("process_threads", "Threads.", process.num_threads())
    used = CounterMetricFamily(
        "process_cpu_seconds", "Processor time, user and system.", value=times.user + times.system
    )
    yield used
