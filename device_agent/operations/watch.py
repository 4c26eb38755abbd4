"""Watch: what the routes of operators ask, put together from the shelf, the machine's sensors and what was noted."""

import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, InfoMetricFamily, Metric

from device_agent import sensors
from device_agent.http.replies.reports import DeviceReply, Machine, Versions
from device_agent.http.services import Card, Health, Rates, Served
from device_agent.operations.device import machine, report, versions
from device_agent.operations.health import health
from device_agent.operations.metrics import Metrics, by_label, gauge, process_readings
from device_agent.operations.speeds import Speeds
from device_agent.shelf import Shelf


class Ledger(Protocol):
    """What is asked of the ledger of tokens."""

    trouble: str | None
    """Why it cannot be written at the moment."""

    dropped: int
    """Requests that it had to leave out so far."""


class Watch:
    """Implements `Operations`, and `Book`.

    `home` is the agent's folder, whose disk counts; `updates` reads the metrics of those.
    """

    def __init__(
        self,
        shelf: Shelf,
        home: Path,
        *,
        ledger: Ledger | None = None,
        updates: Callable[[], Iterable[Metric]] = tuple,
        read_sensors: Callable[[Path], sensors.Readings] = sensors.read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf = shelf
        self._home = home
        self._ledger = ledger
        self._updates = updates
        self._read_sensors = read_sensors
        self._clock = clock
        self._began = clock()
        self._stopping = False
        self._speeds = Speeds(clock=clock)
        self._metrics = Metrics(self._readings)

    def stop(self) -> None:
        """From now on the agent is not ready."""
        self._stopping = True

    def note(self, served: Served) -> None:
        """Take note of a request that ended."""
        self._speeds.note(served)
        self._metrics.note(served)

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count a response."""
        self._metrics.answered(route=route, method=method, status=status, seconds=seconds)

    def health(self) -> Health:
        """How the agent is."""
        disk = sensors.disk(self._home)
        return health(
            self._shelf.standing(),
            stopping=self._stopping,
            trouble=self._ledger.trouble if self._ledger else None,
            free_bytes=disk.free_bytes if disk else None,
        )

    def measured(self, model: str) -> Rates:
        """How fast a model was for its last requests."""
        return self._speeds.of(model)

    def device(self) -> DeviceReply:
        """The report of this machine."""
        uptime_s = self._clock() - self._began
        readings = self._read_sensors(self._home)
        return report(self._shelf.cards(), readings, self._rates(), built=self._built, uptime_s=uptime_s)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics."""
        return self._metrics.exposition(accept)

    @functools.cached_property
    def _built(self) -> tuple[Versions, Machine]:
        return versions(), machine()

    def _rates(self) -> Rates:
        tallies = self._shelf.tallies().values()
        read, written = sum(tally.read_tokens for tally in tallies), sum(tally.written_tokens for tally in tallies)
        return self._speeds.sample(read=read, written=written)

    # --- gauges -----------------------------------------------------------------------------------

    def _readings(self) -> Iterable[Metric]:
        yield from self._model_readings()
        yield from self._machine_readings()
        yield from process_readings()
        if self._ledger is not None:
            told = "Requests that the ledger of tokens had to leave out."
            yield CounterMetricFamily("edgekit_ledger_dropped_notes", told, value=self._ledger.dropped)
        yield from self._updates()
        well = self.health()
        yield from gauge("edgekit_ready", "Whether requests are answered.", float(well.ready))
        yield from gauge("edgekit_healthy", "Whether nothing is wrong.", float(well.status == "ok"))

    def _model_readings(self) -> Iterable[Metric]:
        cards = self._shelf.cards()
        info = InfoMetricFamily("edgekit_model", "Models of the store.", labels=("model",))
        for card in cards:
            facts = {"version": card.manifest.version, "sha256": card.sha256, "kind": card.manifest.task}
            info.add_metric((card.id,), facts | {"quantisation": card.manifest.quant.precision})
        yield info
        yield by_label("edgekit_model_loaded", "Whether it is in memory.", "model", _each(cards, _is_loaded))
        yield by_label("edgekit_model_active", "Whether it is the active one.", "model", _each(cards, _is_active))
        states = [(card.id, card.state) for card in cards if card.state is not None]
        for name, told, read in _GAUGES_OF_ENGINES:
            yield by_label(name, told, "model", [(model, float(getattr(state, read))) for model, state in states])
        tallies = self._shelf.tallies().items()
        for name, told, read in _COUNTERS_OF_ENGINES:
            values = [(model, float(getattr(tally, read))) for model, tally in tallies]
            yield by_label(name, told, "model", values, counts=True)

    def _machine_readings(self) -> Iterable[Metric]:
        found = self._read_sensors(self._home)
        throttled = None if found.throttled is None else float(found.throttled)
        yield from gauge("edgekit_cpu_temperature_celsius", "The processor's temperature.", found.temperature_c)
        yield from gauge("edgekit_cpu_throttled", "Whether the processor may not run at full speed.", throttled)
        yield from gauge("edgekit_memory_available_bytes", "Memory that is free to take.", found.memory.available_bytes)
        if found.disk is not None:
            yield from gauge("edgekit_disk_free_bytes", "Free on the disk of EDGEKIT_HOME.", found.disk.free_bytes)
        if found.battery is not None:
            yield from gauge("edgekit_battery_ratio", "Charge of the battery, 0 to 1.", found.battery.percent / 100)
            yield from gauge("edgekit_battery_plugged", "Whether it is charged.", float(found.battery.plugged))


_GAUGES_OF_ENGINES = (
    ("edgekit_requests_processing", "Requests that run (llama.cpp: requests_processing).", "running"),
    ("edgekit_requests_deferred", "Requests that wait for a slot (llama.cpp: requests_deferred).", "waiting"),
    ("edgekit_slots", "Requests that can run together.", "slots"),
    ("edgekit_prefix_cache_entries", "Texts of ended requests that are kept.", "cached_entries"),
    ("edgekit_prefix_cache_bytes", "Memory of those.", "cached_bytes"),
)
_COUNTERS_OF_ENGINES = (
    ("edgekit_engine_read_tokens", "Prompt tokens that engines read, for requests that failed too.", "read_tokens"),
    ("edgekit_engine_cached_tokens", "Prompt tokens that engines knew.", "cached_tokens"),
    ("edgekit_engine_written_tokens", "Tokens that engines generated.", "written_tokens"),
    ("edgekit_drafted_tokens", "Tokens guessed ahead (llama.cpp: speculative drafts).", "drafted"),
    ("edgekit_accepted_tokens", "Guesses that were right.", "accepted"),
)


def _each(cards: Iterable[Card], fact: Callable[[Card], bool]) -> list[tuple[str, float]]:
    return [(card.id, float(fact(card))) for card in cards]


def _is_loaded(card: Card) -> bool:
    return card.loaded


def _is_active(card: Card) -> bool:
    return card.active
