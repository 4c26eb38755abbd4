"""A shelf whose models are fakes, loaded when a test says so."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from device_agent.engine.records import EngineState
from device_agent.http.services import Encoder
from device_agent.shelf import Entry, Found, Opened, Shelf
from device_agent.shelf.records import Served
from edgekit.errors import EdgekitError
from edgekit.manifest import Embedding, Manifest
from tests import fakes

WAIT_S = 60.0
"""Only ever waited for when something is broken."""
MODEL_BYTES = 1_000
"""What each fake model takes: its weights, and no cache."""
STATE = EngineState(
    running=0,
    waiting=0,
    slots=4,
    loaded=True,
    resting=False,
    threads=1,
    cached_entries=0,
    cached_bytes=0,
    read_tokens=5,
    cached_tokens=4,
    written_tokens=3,
    drafted=2,
    accepted=1,
)

Result = TypeVar("Result")
Make = Callable[..., Shelf]


def manifest(name: str = "tiny", version: str = "1", *, embeds: bool = False) -> Manifest:
    made = fakes.manifest(name=name, version=version)
    needs = msgspec.structs.replace(made.requires, weight_bytes=MODEL_BYTES, kv_bytes_per_token=0)
    made = msgspec.structs.replace(made, requires=needs)
    if not embeds:
        return made
    embedding = Embedding(pooling="mean", normalise=True, max_tokens=64, dimension=made.arch.hidden)
    return msgspec.structs.replace(made, task="embed", embedding=embedding)


def entry(name: str = "tiny", version: str = "1", *, sha256: str = "", embeds: bool = False) -> Entry:
    made = manifest(name, version, embeds=embeds)
    return Entry(id=name, folder=Path("/shelf", name), manifest=made, sha256=sha256 or version, created=1)


def found(*entries: Entry) -> Found:
    return Found(entries=entries)


class FakeModel:
    """Says which entry it was opened from, and whether it was closed."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.closed = threading.Event()
        self.swept = threading.Event()
        self.adapters = sorted(entry.adapters)

    def adapt(self, entry: Entry) -> None:
        self.adapters = sorted(entry.adapters)

    @property
    def manifest(self) -> Manifest:
        return self.entry.manifest

    def state(self) -> EngineState:
        return STATE


@dataclass
class Loader:
    """Opens what a test lets it open.

    With `gated`, each load first puts its entry into `begun`, and waits for one item of `gate`: an error is raised.
    """

    gated: bool = False
    begun: "queue.SimpleQueue[Entry]" = field(default_factory=queue.SimpleQueue)
    gate: "queue.SimpleQueue[Exception | None]" = field(default_factory=queue.SimpleQueue)
    errors: dict[str, EdgekitError | Exception] = field(default_factory=dict)
    models: list[FakeModel] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __call__(self, entry: Entry) -> Opened:
        self.loads.append(entry.id)
        if self.gated:
            self.begun.put(entry)
            problem = self.gate.get(timeout=WAIT_S)
            if problem is not None:
                raise problem
        if entry.id in self.errors:
            raise self.errors[entry.id]
        model = FakeModel(entry)
        self.models.append(model)
        if entry.manifest.embedding is not None:
            return Opened(encoder=cast("Encoder", model), close=model.closed.set)
        return Opened(model=cast("Served", model), adapt=model.adapt, close=model.closed.set, sweep=model.swept.set)

    def model(self, name: str) -> Any:
        """The one that was opened last under this name."""
        return next(model for model in reversed(self.models) if model.entry.id == name)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def beside(work: Callable[[], Result]) -> "Future[Result]":
    """Run `work` on a thread of its own."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
