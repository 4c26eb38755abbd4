"""TUF metadata of a repository: made, changed and signed. Pure: no clock, no disk; keys are asked to sign.

The roles, and for how long their signatures count, after which they are to be made anew (`edgekit repo refresh`):

    root       which keys count                 2 years   root's keys, as many of them as its threshold says
    targets    who signs releases and rollouts  1 year    the key of `releases`
    releases   what may ever run, and floors    1 year    the key of `releases`, delegated by targets
    rollout    who gets what now                90 days   the key of `rollout`, delegated by targets
    snapshot   versions of the last three       30 days   the key of `timestamp`
    timestamp  the current snapshot             30 days   the key of `timestamp`

`releases` has two fields of ours in its signed part: `x-edgekit-floors`, the lowest sequence of each model that may
run, and `x-edgekit-withdrawn`, ids that are never to be given again. `timestamp` has `x-edgekit-issued`, when it was
made (Unix seconds), which a device without a clock takes for the time.
"""

import copy
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from securesystemslib.signer import Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    T,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from edgekit.errors import KeyUnavailable, PublishError
from edgekit.release.manifest import Release
from edgekit.release.names import RELEASES, ROLLOUT
from export.publish.keys import SIGNS, Holder, Keyring, shown

DAY_S = 86_400
LIFETIME_DAYS: Mapping[str, int] = {
    "root": 730,
    "targets": 365,
    RELEASES: 365,
    ROLLOUT: 90,
    "snapshot": 30,
    "timestamp": 30,
}
ROLES = tuple(LIFETIME_DAYS)
PATHS: Mapping[str, tuple[str, ...]] = {RELEASES: ("releases/*",), ROLLOUT: ("channels/*", "deltas/*")}
"""What each delegated role may say something about."""

FLOORS, WITHDRAWN, ISSUED = "x-edgekit-floors", "x-edgekit-withdrawn", "x-edgekit-issued"
CLOCK_SLACK_S = DAY_S


class Withdrawn(msgspec.Struct, frozen=True):
    """A release that is no longer listed."""

    sequence: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Authority:
    """Which keys sign a role, and how many of them must."""

    keys: tuple[Key, ...]
    threshold: int

    @property
    def keyids(self) -> frozenset[str]:
        """Ids of the keys."""
        return frozenset(key.keyid for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The metadata of one moment. Not to be changed: `successor` makes what comes next."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    releases: Metadata[Targets]
    rollout: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    def role(self, name: str) -> Metadata[Any]:
        """A role's metadata, by the role's name."""
        found: Metadata[Any] = getattr(self, name)
        return found


# --- reading ----------------------------------------------------------------------------------


def parse(raw: bytes, kind: type[T], *, name: str) -> Metadata[T]:
    """Metadata of one type. Raises PublishError; `name` is the file's, for the sentence."""
    try:
        metadata: Metadata[T] = Metadata.from_bytes(raw)
    except DeserializationError as error:
        raise PublishError(f"{name} of the repository is damaged: {error.__cause__ or error}") from error
    if not isinstance(metadata.signed, kind):
        raise PublishError(f"{name} of the repository is not {kind.type} metadata")
    return metadata


def authority(name: str, root: Root, targets: Targets | None) -> Authority:
    """Who signs a role: as root says, or for the delegated ones as targets says."""
    if name in root.roles:
        role: Role = root.roles[name]
        return Authority(tuple(root.keys[keyid] for keyid in role.keyids), role.threshold)
    if targets is None or targets.delegations is None or name not in (targets.delegations.roles or {}):
        raise PublishError(f"the repository has no role {name!r}")
    found = (targets.delegations.roles or {})[name]
    return Authority(tuple(targets.delegations.keys[keyid] for keyid in found.keyids), found.threshold)


def holder_of(name: str) -> Holder:
    """Whose keys sign a role."""
    return next(holder for holder, names in SIGNS.items() if name in names)


def is_signed(state: State, name: str) -> bool:
    """Whether enough of the keys that count now signed a role's metadata."""
    delegator: Root | Targets = state.root.signed if name in state.root.signed.roles else state.targets.signed
    metadata = state.role(name)
    try:
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (UnsignedMetadataError, ValueError):
        return False
    return True


def is_due(state: State, name: str, now: float) -> bool:
    """Whether a role is to be signed anew: less than a third of its life is left, or its signatures do not count."""
    left_s = state.role(name).signed.expires.timestamp() - now
    return left_s < LIFETIME_DAYS[name] * DAY_S / 3 or not is_signed(state, name)


def floors(state: State) -> dict[str, int]:
    """The lowest sequence of each model that may run."""
    found: dict[str, int] = state.releases.signed.unrecognized_fields.get(FLOORS, {})
    return dict(found)


def withdrawn(state: State) -> dict[str, Withdrawn]:
    """Ids that were published and are no longer listed."""
    return msgspec.convert(state.releases.signed.unrecognized_fields.get(WITHDRAWN, {}), dict[str, Withdrawn])


def issued(state: State) -> int:
    """When the timestamp was made: Unix seconds."""
    return int(state.timestamp.signed.unrecognized_fields.get(ISSUED, 0))


# --- making -----------------------------------------------------------------------------------


def at(now: float) -> datetime.datetime:
    """Unix seconds as TUF's metadata wants them."""
    return datetime.datetime.fromtimestamp(int(now), datetime.UTC)


def expiry(name: str, now: float) -> datetime.datetime:
    """Until when a role's signatures count that are made now."""
    return at(now + LIFETIME_DAYS[name] * DAY_S)


def first(keys: Mapping[Holder, Sequence[Key]], *, root_threshold: int, now: float) -> State:
    """Metadata of an empty repository, not signed. Raises PublishError if there are fewer keys than the threshold."""
    if not 1 <= root_threshold <= len(keys["root"]):
        raise PublishError(f"{root_threshold} of {len(keys['root'])} root keys cannot be asked for")
    root = Root(version=1, expires=expiry("root", now))
    for holder in SIGNS:
        for name in set(SIGNS[holder]) & set(root.roles):
            for key in keys[holder]:
                root.add_key(key, name)
    root.roles["root"].threshold = root_threshold
    targets = Targets(version=1, expires=expiry("targets", now))
    who = {RELEASES: authority("targets", root, None), ROLLOUT: Authority(tuple(keys["rollout"]), 1)}
    targets.delegations = delegations(who)
    return State(
        root=Metadata(root),
        targets=Metadata(targets),
        releases=Metadata(Targets(1, None, expiry(RELEASES, now), {}, None, {FLOORS: {}, WITHDRAWN: {}})),
        rollout=Metadata(Targets(1, None, expiry(ROLLOUT, now), {})),
        snapshot=Metadata(Snapshot(1, None, expiry("snapshot", now))),
        timestamp=Metadata(Timestamp(1, None, expiry("timestamp", now), None, {ISSUED: int(now)})),
    )


def delegations(authorities: Mapping[str, Authority]) -> Delegations:
    """What targets says of the delegated roles. Terminating: nobody else is asked about their paths."""
    roles = {
        name: DelegatedRole(name, sorted(who.keyids), who.threshold, terminating=True, paths=list(PATHS[name]))
        for name, who in authorities.items()
    }
    return Delegations({key.keyid: key for who in authorities.values() for key in who.keys}, roles)


def successor(old: Metadata[T], name: str, *, version: int, now: float, days: int = 0) -> Metadata[T]:
    """A copy with a new version and expiry (in `days` at the earliest), to be changed and signed."""
    new = Metadata(copy.deepcopy(old.signed))
    new.signed.version = version
    new.signed.expires = max(expiry(name, now), at(now + days * DAY_S))
    return new


def release_entry(path: str, release: Release, manifest: bytes) -> TargetFile:
    """How `releases` lists a release."""
    target = TargetFile.from_data(path, manifest, ["sha256"])
    target.unrecognized_fields["custom"] = {
        "kind": release.kind,
        "model": release.name,
        "version": release.version,
        "sequence": release.sequence,
        "bytes": release.file_bytes,
    }
    return target


def meta_file(version: int, raw: bytes) -> MetaFile:
    """How snapshot and timestamp list a role's file: with its length and digest, not its version alone."""
    return MetaFile.from_data(version, raw, ["sha256"])


def next_issued(state: State, now: float) -> int:
    """When the next timestamp is made: never before the last one, which devices may have taken for the time.

    Raises PublishError if this machine's clock is so far behind that it must be wrong.
    """
    last = issued(state)
    if now < last - CLOCK_SLACK_S:
        raise PublishError(
            f"this machine's clock says {at(now):%Y-%m-%d %H:%M} UTC, and the repository was published at"
            f" {at(last):%Y-%m-%d %H:%M} UTC: set the clock"
        )
    return max(int(now), last)


# --- signing ----------------------------------------------------------------------------------


def sign(metadata: Metadata[Any], who: Authority, keyring: Keyring) -> bool:
    """Add signatures of those of the keys that are at hand, as many as it takes. Whether there are enough now."""
    for key in who.keys:
        if len(who.keyids & set(metadata.signatures)) >= who.threshold:
            break
        if keyring.has(key.keyid) and key.keyid not in metadata.signatures:
            metadata.sign(keyring.signer(key), append=True)
    return len(who.keyids & set(metadata.signatures)) >= who.threshold


def require(metadata: Metadata[Any], name: str, who: Authority, keyring: Keyring) -> None:
    """As `sign`. Raises KeyUnavailable if there are not enough."""
    if not sign(metadata, who, keyring):
        missing = sorted(shown(key.keyid) for key in who.keys if not keyring.has(key.keyid))
        raise KeyUnavailable(
            f"{name} must be signed by {who.threshold} of the keys of {holder_of(name)!r}, and not at hand:"
            f" {', '.join(missing)}"
        )
