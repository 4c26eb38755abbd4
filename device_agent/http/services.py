"""What the routes need from the rest of the agent: protocols and records, no code.

The composition root (device_agent/app.py) puts real ones behind them, and tests put fakes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from device_agent.access.keys import Key, KeyWish
from device_agent.access.keys import Scope as Scope  # noqa: PLC0414 - a part of this contract
from device_agent.engine.records import EngineState, ModelService
from device_agent.ledger.report import Column, UsageRow
from edgekit.manifest import Manifest
from edgekit.strategies import Strategies, packaged

Dialect = Literal["chat", "completions", "responses", "messages", "embeddings"]


# --- models ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A model of the store, loaded or not. `created` is Unix seconds; `active` is who answers if nobody is named.

    `text` is MODEL_CARD.md. `state` is the engine's, None while the model is not in memory (or is an encoder).
    """

    id: str
    manifest: Manifest
    sha256: str
    created: int
    active: bool
    loaded: bool
    adapters: tuple[str, ...] = ()
    text: str = ""
    state: EngineState | None = None


class Encoder(Protocol):
    """A model that turns texts into vectors (device_agent.EmbeddingModel)."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's facts."""

    def tokens(self, text: str, *, truncate: bool = False) -> tuple[int, ...]:
        """Ids of a text. Raises ContextOverflow or InvalidRequest."""

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> npt.NDArray[np.float32]:
        """One vector for each text: [texts, dimension]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A request's `model`, taken apart: `base[:adapter][@strategy]`."""

    base: str
    adapter: str | None = None
    strategy: str | None = None


class Lease(Protocol):
    """A model that stays in memory until it is released."""

    name: ModelName

    @property
    def card(self) -> Card:
        """Facts of the base."""

    @property
    def model(self) -> ModelService:
        """Who answers. Raises InvalidRequest if it is an encoder."""

    @property
    def encoder(self) -> Encoder:
        """Who makes vectors. Raises InvalidRequest if it generates."""

    def release(self) -> None:
        """Give it back; again is harmless. From any thread."""


class Models(Protocol):
    """The store's models, by name."""

    def cards(self) -> Sequence[Card]:
        """All of them, the active one first."""

    def card(self, name: str) -> Card:
        """One of them, by its id or as a request names it. Raises UnknownModel."""

    def lease(self, name: str) -> Lease:
        """The model of a request, loaded if it is not.

        Raises UnknownModel (also for an unknown adapter or strategy), BundleError, or Overloaded if there is no room
        for it while others are in use.
        """

    def activate(self, name: str) -> Card:
        """Make it the one that answers if nobody is named, also after a restart. Raises as `lease` does."""

    def unload(self, name: str) -> Card:
        """Take it out of memory once nobody uses it. Raises UnknownModel."""


# --- callers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: `key` is the key's id (never the secret), "" for a local process without one."""

    key: str = ""
    name: str = "local"
    scopes: frozenset[Scope] = field(default_factory=lambda: frozenset({"infer"}))


class Ticket(Protocol):
    """A request that was admitted: it counts as running until it is closed."""

    def close(self) -> None:
        """It has ended; again is harmless. From any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is left of a caller's quotas; a limit that is None is none, and the rest of its line says nothing."""

    requests: int | None = None
    requests_left: int = 0
    requests_reset_s: float = 0.0
    tokens: int | None = None
    tokens_left: int = 0
    tokens_reset_s: float = 0.0


class Gate(Protocol):
    """Who may come in."""

    def identify(self, credential: str | None, *, local: bool) -> Caller:
        """Who sends this key (None: no key); `local` if a program on this machine does.

        Raises Unauthorised for one that is wrong, expired, or missing where one is required. A key that nobody made is
        as good as none where none is required: SDKs insist on sending one. From another machine one always is.
        """

    def admit(self, caller: Caller) -> Ticket:
        """Count a request that makes tokens. Raises QuotaExceeded."""

    def standing(self, caller: Caller) -> Standing:
        """What is left of the caller's quotas."""


class Keys(Protocol):
    """All keys, for those who give them out."""

    def all(self) -> Sequence[Key]:
        """Each of them, revoked ones too."""

    def add(self, wish: KeyWish) -> tuple[Key, str]:
        """A new key, and its secret, which nobody can ask for again. Raises InvalidRequest or StorageFailed."""

    def revoke(self, key_id: str) -> Key:
        """The key, which opens nothing any more. Raises RouteError if there is none, or StorageFailed."""


# --- what was served ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request that came to an end, whichever. Times in seconds; `at` is Unix time.

    `finish` is the reason of the first choice, "error" or "cancelled". `prompt` and `answer` are texts, and empty
    unless the agent was told to keep them.
    """

    at: float
    caller: Caller
    dialect: Dialect
    model: str
    adapter: str | None
    sha256: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    first_token_s: float | None
    total_s: float
    finish: str
    prompt: str = ""
    answer: str = ""


class Book(Protocol):
    """Takes note of what was served: the ledger of tokens, and the metrics."""

    def note(self, served: Served) -> None:
        """Never raises: what cannot be written is logged and counted."""


# --- how it is ------------------------------------------------------------------------------

Status = Literal["ok", "loading", "degraded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the agent is, and why. One that is `ready` answers requests, though perhaps not every one."""

    status: Status
    reasons: tuple[str, ...] = ()
    ready: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Tokens a second; None where nothing was measured."""

    prompt_tokens_per_s: float | None
    decode_tokens_per_s: float | None


class Operations(Protocol):
    """What operators look at."""

    def health(self) -> Health:
        """How the agent is."""

    def measured(self, model: str) -> Rates:
        """How fast a model was for its last requests, on this machine."""

    def device(self) -> Struct:
        """What /v1/edgekit/device says (DeviceReply in reports.py, which builds on these records)."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that `accept` asks for, and its media type."""

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count a response; `route` is the rule as Flask writes it, never what somebody typed."""


class Usage(Protocol):
    """What was served, added up."""

    @property
    def currency(self) -> str | None:
        """Of the costs in `usage`, None if nothing has a price."""

    @property
    def keeps_texts(self) -> bool:
        """Whether prompts and answers are written down too."""

    def usage(self, *, days: int, group: tuple[Column, ...], key: str | None = None) -> Sequence[UsageRow]:
        """Sums of the last `days` days, by the columns of `group`; of one key only if it is given ("": no key).

        Raises InvalidRequest if there are too many rows, StorageFailed.
        """

    def last_used(self) -> Mapping[str, float]:
        """When each key was used last, by the hour. Raises StorageFailed."""


# --- updates --------------------------------------------------------------------------------


class Sync(Protocol):
    """The sync link, for people and programs. Everything returns at once; `status` tells how it goes on."""

    def status(self) -> Struct:
        """What /v1/edgekit/sync says (SyncReply in replies/sync.py)."""

    def check(self) -> None:
        """Look for updates now, and install nothing. Raises Busy or NotEnrolled."""

    def update(self) -> None:
        """Look for updates now, whatever the schedule says, and install them. Raises Busy or NotEnrolled."""

    def rollback(self, channel: str | None) -> None:
        """Go back to the release before; None means the only channel. Raises Busy, NotEnrolled or Refused."""

    def pin(self, channel: str | None, release: str | None) -> None:
        """Stay on an installed release (None: the active one), whatever the channel says. Raises as `rollback`."""

    def unpin(self, channel: str | None) -> None:
        """Follow the channel again. Raises as `rollback`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything behind the door. `books` hear of every request; `strategies` are those that one may name.

    Of `keys`, `usage`, `operations` and `sync` that are None, the routes are not found. Books hear of prompts and
    answers only if `usage` keeps texts.
    """

    models: Models
    gate: Gate
    books: tuple[Book, ...] = ()
    keys: Keys | None = None
    usage: Usage | None = None
    operations: Operations | None = None
    sync: Sync | None = None
    strategies: Strategies = field(default_factory=packaged)
