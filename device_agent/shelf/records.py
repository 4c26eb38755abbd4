"""What the room's files say to each other, and to who builds the agent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from device_agent.engine.records import EngineState, ModelService
from device_agent.http.services import Encoder
from edgekit.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA on the shelf: where it is, and the SHA-256 of its adapter.json."""

    folder: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A bundle on the shelf. `id` is what requests call it, `sha256` that of its bundle.json.

    `created` is when bundle.json was written, in Unix seconds; `text` is MODEL_CARD.md, perhaps cut; `adapters` are
    those that requests may ask for, by name.
    """

    id: str
    folder: Path
    manifest: Manifest
    sha256: str
    created: int
    text: str = ""
    adapters: Mapping[str, Adapter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """A folder on the shelf that cannot be used, and why."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a scan found. `alone` says that the shelf is one bundle. `aliases` are further names, each of an id.

    `preferred` is the id of the one that is active if nobody was made so; None: the first that generates.
    """

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    preferred: str | None = None


class Served(ModelService, Protocol):
    """A model that generates, and says what its engine does."""

    def state(self) -> EngineState:
        """What the engine is doing, and what it did so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A bundle in memory: it generates or encodes.

    `adapt` gives it the adapters of an entry instead of those that it has; it never raises. After `close`, which may
    take a while, it is not used; `sweep` is called when nothing refers to it any more.
    """

    model: Served | None = None
    encoder: Encoder | None = None
    adapt: Callable[[Entry], None] = lambda _: None
    close: Callable[[], None] = lambda: None
    sweep: Callable[[], None] = lambda: None


Opener = Callable[[Entry], Opened]
"""Loads a bundle, whatever time that takes. Raises EdgekitError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfSettings:
    """When models are put away, and how long requests wait for one.

    `slots` are those of the engine's settings, by which memory is set aside for a model's cache (None: the usual). All
    loaded models together take `max_loaded_bytes` at most (None: a share of the memory that is free or theirs). One
    that was not used for `idle_unload_s` is closed (None: never). A request waits `loading_wait_s` at most for a model
    to be loaded. After a load that failed, requests hear of that for `retry_s`, and then one tries again.
    """

    slots: int | None = None
    max_loaded_bytes: int | None = None
    idle_unload_s: float | None = None
    loading_wait_s: float = 120.0
    retry_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the shelf is: what it waits for, and what is wrong.

    `loading` is whether the active model is on its way into memory; `failures` are models that could not be loaded the
    last time, by id; `faults` are folders that are no models.
    """

    active: str | None
    loading: bool
    failures: Mapping[str, str]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a model's engines have done since the agent started, those that were closed since included."""

    read_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    def plus(self, state: EngineState) -> "Tally":
        """With what one more engine did."""
        return Tally(
            read_tokens=self.read_tokens + state.read_tokens,
            cached_tokens=self.cached_tokens + state.cached_tokens,
            written_tokens=self.written_tokens + state.written_tokens,
            drafted=self.drafted + state.drafted,
            accepted=self.accepted + state.accepted,
        )
