"""One generation as it is read: every signature and version is looked at again, so that no view trusts a mere file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from device_agent.sync.trust import generations
from device_agent.sync.trust.record import Generation, Standing
from edgekit.errors import Untrusted
from edgekit.release.names import RELEASES

ISSUED = "x-edgekit-issued"
"""Of the timestamp: when it was signed, Unix seconds."""

FLOORS = "x-edgekit-floors"
"""Of the role `releases`: the lowest sequence of each model that may run."""

MAX_SEQUENCE = 1 << 53

NOT_METADATA = (RepositoryError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What python-tuf raises for bytes that are no metadata, or not signed as they must be."""

_Kind = TypeVar("_Kind", Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Verified metadata. `fallback`: there was a newer generation, which is damaged."""

    generation: Generation | None
    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    delegated: Mapping[str, Targets]
    fallback: bool = False

    @property
    def expires(self) -> float:
        """When the first of its roles goes out of date, Unix seconds."""
        every = (self.root, self.timestamp, self.snapshot, self.targets, *self.delegated.values())
        return min(signed.expires.timestamp() for signed in every)

    @property
    def issued(self) -> int:
        """When its timestamp says that it was signed, 0 if it does not. Not after it expires: that would stop time."""
        found = _count(self.timestamp.unrecognized_fields.get(ISSUED))
        return min(found, int(self.timestamp.expires.timestamp()) - 1)

    def floors(self) -> dict[str, int]:
        """What the role `releases` signs as the lowest sequences."""
        releases = self.delegated.get(RELEASES)
        found = None if releases is None else releases.unrecognized_fields.get(FLOORS)
        return {str(model): _count(floor) for model, floor in found.items()} if isinstance(found, dict) else {}

    def standings(self) -> dict[str, Standing]:
        """Keys and version of each role."""
        top = {"root": self.root, "timestamp": self.timestamp, "snapshot": self.snapshot, "targets": self.targets}
        found = {role: Standing(_keys(self.root, role), signed.version) for role, signed in top.items()}
        for role, targets in self.delegated.items():
            found[role] = Standing(_keys(self.targets, role), targets.version)
        return found

    def may_list(self, role: str, path: str) -> bool:
        """Whether `targets` lets that role say anything about a target path."""
        delegations = self.targets.delegations
        known = None if delegations is None or delegations.roles is None else delegations.roles.get(role)
        return known is not None and known.is_delegated_path(path)


def read(
    folder: Path, delegated: Sequence[str], *, generation: Generation | None = None, fallback: bool = False
) -> Trusted:
    """Read a generation. Raises Untrusted if it is not one consistent whole."""
    try:
        root = newest_root(folder)
        timestamp = _verified(folder, "timestamp", Timestamp, root)
        snapshot = _verified(folder, "snapshot", Snapshot, root)
        _same_version("snapshot", snapshot.version, timestamp.snapshot_meta.version)
        targets = _verified(folder, "targets", Targets, root)
        _same_version("targets", targets.version, snapshot.meta["targets.json"].version)
        others = {role: _verified(folder, role, Targets, targets) for role in delegated}
        for role, found in others.items():
            _same_version(role, found.version, snapshot.meta[f"{role}.json"].version)
    except (*NOT_METADATA, OSError) as error:
        raise Untrusted(f"its metadata is not one consistent whole: {error}"[:500]) from error
    return Trusted(
        generation=generation,
        root=root,
        timestamp=timestamp,
        snapshot=snapshot,
        targets=targets,
        delegated=others,
        fallback=fallback,
    )


def newest_root(folder: Path) -> Root:
    """The last of the chain, whose links python-tuf verified. Raises what `NOT_METADATA` has, or OSError."""
    path = generations.latest_root(folder)
    if path is None:
        raise ValueError("there is no root")
    metadata: Metadata[Root] = Metadata.from_bytes(path.read_bytes())
    metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    return metadata.signed


def standing_of(folder: Path, role: str, root: Root) -> Standing | None:
    """That of a role that may not be there, or not be signed by its present keys."""
    try:
        return Standing(_keys(root, role), int(_verified(folder, role, Timestamp, root).version))
    except (*NOT_METADATA, OSError):
        return None


def _verified(folder: Path, role: str, kind: type[_Kind], delegator: Root | Targets) -> _Kind:
    metadata: Metadata[Any] = Metadata.from_bytes((folder / f"{role}.json").read_bytes())
    delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    if not isinstance(metadata.signed, kind):
        raise TypeError(f"{role} is of another type")
    return metadata.signed


def _same_version(role: str, found: int, said: int) -> None:
    if found != said:
        raise ValueError(f"{role} has version {found}, and {said} was said")


def _keys(delegator: Root | Targets, role: str) -> tuple[str, ...]:
    if isinstance(delegator, Root):
        return tuple(sorted(delegator.roles[role].keyids))
    roles = None if delegator.delegations is None else delegator.delegations.roles
    if roles is None:
        raise KeyError(role)
    return tuple(sorted(roles[role].keyids))


def _count(value: object) -> int:
    """A number that was signed, within reason; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_SEQUENCE else 0
