"""What the rooms of the sync link say to each other: protocols and records, no code."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgekit.release.manifest import Kind
from edgekit.release.names import ReleaseId

Clock = Callable[[], float]
"""Unix seconds, as this machine believes."""


# --- where bytes come from --------------------------------------------------------------------


class Source(Protocol):
    """A repository, read only. One thread at a time.

    `holds` is how content is addressed: by pack and offset, or (an OCI registry) by whole file and offset; a chunk then
    is `size` raw bytes at its place in the file called `file_path(sha256)`. Differences are in packs everywhere.
    """

    @property
    def name(self) -> str:
        """For people: a URL without secrets, or a folder."""

    @property
    def holds(self) -> Literal["packs", "files"]:
        """How content is addressed."""

    def read(self, path: str, *, limit: int) -> bytes:
        """A whole small file. Raises NotInRepository, Unreachable, or CorruptRelease if it is larger than `limit`."""

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """Exactly `length` bytes from `start` of a file of `size` bytes, in pieces; what came before an error counts.

        Raises NotInRepository, Unreachable, or CorruptRelease for an answer that is not these bytes.
        """

    def blame(self) -> None:
        """What came last was not what was signed: another mirror, if there is one, goes first from now on."""

    def close(self) -> None:
        """Close connections."""


def file_path(sha256: str) -> str:
    """Path under which a source that holds files has one."""
    return f"files/{sha256}"


# --- what may be trusted ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A release that the role `releases` lists. `manifest_sha256` is that of its manifest, which is its identity."""

    id: ReleaseId
    kind: Kind
    model: str
    version: str
    sequence: int
    manifest_sha256: str
    manifest_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is trusted at one moment. `floors` are the lowest sequences that may run, by model.

    `now` is the effective time: the largest of the machine's clock, the last one that was kept, and when the newest
    timestamp was issued; `clock_reliable` is false where the machine's is behind. `fresh` is false once any role's
    metadata is out of date: nothing new is to be installed then, unless a channel says "warn".
    """

    now: float
    clock_reliable: bool
    fresh: bool
    expires: float
    root_version: int
    timestamp_version: int
    releases: Mapping[ReleaseId, Listed]
    floors: Mapping[str, int]
    channels: frozenset[str]
    deltas: frozenset[str]
    """Target paths."""


class Trusting(Protocol):
    """Metadata, verified and kept (device_agent/sync/trust)."""

    def refresh(self, source: Source) -> View:
        """Fetch what is new. Raises Untrusted, TrustLost, Unreachable; what was trusted before then still is."""

    def last(self) -> View | None:
        """What was trusted the last time, without any network; None before the first time. Raises TrustLost."""

    def target(self, path: str, source: Source | None, *, limit: int) -> bytes:
        """A metadata target (channel, manifest, delta index), as signed: kept from before, or fetched.

        Raises Untrusted if nobody signed it, NotInRepository, Unreachable, CorruptRelease.
        """


# --- what is going on -------------------------------------------------------------------------

Phase = Literal["idle", "checking", "fetching", "verifying", "trial", "soaking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an update is. Bytes are those that cross the network (or come from the stick); ETA is None if unknown."""

    phase: Phase = "idle"
    channel: str | None = None
    release: ReleaseId | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: float | None = None
    eta_s: float | None = None


Tell = Callable[[Progress], None]


class Stop(Protocol):
    """Says when to leave off; what was fetched stays."""

    def is_set(self) -> bool:
        """Whether to."""

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep, but not beyond that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an update takes. `full_bytes` is the size without any reuse; `fetch_bytes` what has to come."""

    fetch_bytes: int
    delta_bytes: int
    reused_bytes: int
    full_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a channel has for this device; `cost` only where there is something to fetch."""

    channel: str
    release: ReleaseId | None
    reason: str
    cost: Cost | None = None


Ending = Literal["installed", "current", "held", "refused", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a channel's update. `held`: paused, pinned, not yet; `failed`: could not be fetched whole."""

    channel: str
    ending: Ending
    release: ReleaseId | None
    reason: str = ""
    exit_code: int = 0
    moved_bytes: int = 0
    reused_bytes: int = 0
    seconds: float = 0.0


Change = Literal["rollback", "pin", "unpin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator wants done to a channel's line. `release` is what to pin, None: the active one."""

    does: Change
    channel: str | None = None
    release: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Minutes of the local day in which fetching is allowed; `begin` may be later than `end` (over midnight)."""

    begin_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How the link behaves.

    `repositories` are mirrors, the best first. Fetching takes `most_bytes_per_s` at most (None: any) and is given up at
    a mirror that stays under `least_bytes_per_s` for a minute; `windows` are when it may happen (none: always).
    `reserve_bytes` of the disk are left free. `interval_s` is between looks, with some chance in it.
    """

    repositories: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("stable",)
    interval_s: float = 3600.0
    most_bytes_per_s: int | None = None
    least_bytes_per_s: int = 1024
    windows: tuple[Window, ...] = ()
    reserve_bytes: int = 256 << 20
    report: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
