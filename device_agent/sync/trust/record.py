"""What a device remembers of what it trusted: the record, and the rules about versions, keys and time. Without IO."""

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from edgekit.errors import TrustLost, Untrusted
from edgekit.manifest import Sha256

FORMAT = 1
DAY_S = 86_400.0

Version = Annotated[int, msgspec.Meta(ge=0)]


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role as it was accepted: the ids of its keys, and its version."""

    keys: tuple[str, ...]
    version: Version


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder of metadata and the digest of all that is in it.

    One that is not `whole` is what a refresh had verified before it failed: the next one goes on from it, as TUF's
    workflow asks (specification 1.0.34, 5.3.8, 5.4.5, 5.5.7), but no view is made of it.
    """

    number: Annotated[int, msgspec.Meta(ge=1)]
    digest: Sha256
    whole: bool


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `anchor` is the digest of the provisioned root; `generations` are the newest first.

    `clock` is the latest time at which this machine's clock and fresh metadata agreed. `issued` is when the newest
    timestamp says that it was signed, and `floors` what the role `releases` said last: each counts as long as the keys
    that said so are not revoked, for a thief could have said anything.
    """

    format: int
    anchor: Sha256
    generations: tuple[Generation, ...] = ()
    roles: dict[str, Standing] = {}
    floors: dict[str, Version] = {}
    clock: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    issued: Version = 0

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.encode(self, order="deterministic")


def parse(raw: bytes) -> Record:
    """Read a record. Raises TrustLost for one that is none, or that a newer version wrote."""
    try:
        record = msgspec.json.decode(raw, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrustLost(f"its record is none: {error}"[:500]) from error
    if record.format != FORMAT:
        raise TrustLost(f"its record has format {record.format}, and this version reads {FORMAT}")
    return record


def revoked(before: Standing | None, now: Standing | None) -> bool:
    """Whether a key that a role had is not one of its keys any more. A key more is no reason to forget anything."""
    return before is not None and now is not None and not set(before.keys) <= set(now.keys)


def check_versions(before: Mapping[str, Standing], now: Mapping[str, Standing]) -> None:
    """Raises Untrusted for a role whose version fell.

    It may fall when a key of the role was revoked, or of the snapshot that lists its version: that is how an owner
    takes back a version that a thief counted up to the end (specification, 5.3.11). Root's never falls.
    """
    for role, found in now.items():
        kept = before.get(role)
        if kept is None or found.version >= kept.version:
            continue
        governing = {"root": (), "timestamp": ("timestamp",)}.get(role, (role, "snapshot"))
        if not any(revoked(before.get(name), now.get(name)) for name in governing):
            raise Untrusted(f"its {role} metadata has version {found.version}, after {kept.version} had been seen")


def later(before: Mapping[str, Standing], now: Mapping[str, Standing]) -> dict[str, Standing]:
    """The standings that are kept, once `check_versions` has passed."""
    return {**before, **now}


def effective_time(record: Record, *, machine: float, built: float) -> float:
    """The time that expiry is counted by, Unix seconds: no clock that was reset brings a day back that is over."""
    return max(machine, built, record.clock, float(record.issued))


def clock_to_keep(record: Record, *, machine: float, fresh: bool) -> float:
    """The machine's time if fresh metadata bears it out (a clock that is years ahead makes everything stale).

    Rounded down to days, so that hourly looks at an unchanged repository write nothing.
    """
    day = machine // DAY_S * DAY_S
    return max(record.clock, day) if fresh else record.clock


def raised(before: Mapping[str, int], signed: Mapping[str, int]) -> dict[str, int]:
    """The larger floor of each model."""
    return {model: max(before.get(model, 0), signed.get(model, 0)) for model in {*before, *signed}}


def generations_after(before: Iterable[Generation], new: Generation) -> tuple[Generation, ...]:
    """Which generations are kept: the new one, and behind it the newest whole one (behind a failure the newest two)."""
    whole = [generation for generation in before if generation.whole]
    return (new, *whole[: 1 if new.whole else 2])
