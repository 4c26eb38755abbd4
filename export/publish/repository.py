"""A repository in a folder: what it holds, and how it is changed so that devices see the old state or the new one.

    check the change -> sign everything in memory -> targets -> metadata with numbers -> timestamp.json, last

A change that is cut off anywhere leaves files that nobody was told of, and what was served before. Packs are written
before (export/publish/packing.py); a publisher that needs some holds the lock from then on (`writing`).
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.exceptions import LengthOrHashMismatchError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edgekit.errors import KeyUnavailable, NotInRepository, OutputExists, PublishError
from edgekit.files import staging
from edgekit.release import channel as channels
from edgekit.release import delta as deltas
from edgekit.release import manifest
from edgekit.release.channel import Channel
from edgekit.release.delta import Delta
from edgekit.release.manifest import Release
from edgekit.release.names import (
    RELEASES,
    ROLLOUT,
    ChannelName,
    ReleaseId,
    channel_target,
    delta_target,
    release_target,
    target_path,
)
from export.publish import metadata
from export.publish.channels import check as check_channel
from export.publish.keys import Holder, Keyring
from export.publish.metadata import State, Withdrawn
from export.publish.tree import TIMESTAMP, Tree, metadata_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be different. Floors are raised to a release's sequence; a delta replaces the one of the same pair.

    With `days` all signatures are to count for that long at least: for sticks that are on their way for months.
    """

    releases: tuple[Release, ...] = ()
    withdraw: frozenset[ReleaseId] = frozenset()
    floors: Mapping[str, int] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    deltas: tuple[Delta, ...] = ()
    drop: frozenset[str] = frozenset()
    """Target paths of deltas that are no longer listed."""
    days: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a change did: roles that were signed anew, and those that are to be, with keys that were not at hand."""

    signed: tuple[str, ...]
    due: tuple[str, ...]


class Repository:
    """The repository in a folder. Every look reads its files anew."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._held = False

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.tree.folder

    @classmethod
    def open(cls, folder: Path) -> "Repository":
        """Raises PublishError if there is none, or if what it serves does not fit together."""
        if not (folder / TIMESTAMP).is_file():
            raise PublishError(f"{folder} is no repository: `edgekit repo init {folder}` makes one")
        repository = cls(Tree(folder))
        repository.state()
        return repository

    @classmethod
    def init(
        cls,
        folder: Path,
        keys: Mapping[Holder, Sequence[Key]],
        keyring: Keyring,
        *,
        root_threshold: int = 1,
        now: float,
    ) -> "Repository":
        """Make an empty repository, whole or not at all. Raises PublishError, OutputExists or KeyUnavailable."""
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        first = metadata.first(keys, root_threshold=root_threshold, now=now)
        try:
            with staging(folder) as staged:
                repository = cls(Tree(staged))
                repository.tree.make_folders()
                metadata.require(first.root, "root", metadata.authority("root", first.root.signed, None), keyring)
                repository.tree.create(metadata_path("root", 1), first.root.to_bytes())
                new = {name: first.role(name) for name in ("targets", RELEASES, ROLLOUT)}
                repository.finish(first, new, keyring, now=now)
        except OutputExists as error:
            raise PublishError(f"{folder} exists and is not empty") from error
        return cls(Tree(folder))

    # --- looking ------------------------------------------------------------------------------

    def state(self) -> State:
        """The metadata that devices see now. Raises PublishError if it is damaged."""
        try:
            return self._state()
        except NotInRepository as error:
            raise PublishError(f"{self.folder} lacks {error.problem}") from error

    def _state(self) -> State:
        roots = self.tree.versions("root")
        path = metadata_path("root", roots[-1] if roots else 1)
        root = metadata.parse(self.tree.read(path), Root, name=path)
        timestamp = metadata.parse(self.tree.read(TIMESTAMP), Timestamp, name=TIMESTAMP)
        at = timestamp.signed.snapshot_meta
        snapshot = metadata.parse(self._listed("snapshot", at), Snapshot, name="snapshot")
        names = ("targets", RELEASES, ROLLOUT)
        files = {name: snapshot.signed.meta.get(f"{name}.json") for name in names}
        roles = {
            name: metadata.parse(self._listed(name, file), Targets, name=name) for name, file in files.items() if file
        }
        if len(roles) < len(names):
            raise PublishError(f"{self.folder} is no repository of releases: it lacks {set(names) - set(roles)}")
        return State(root=root, snapshot=snapshot, timestamp=timestamp, **roles)

    def _listed(self, name: str, file: MetaFile) -> bytes:
        path = metadata_path(name, file.version)
        raw = self.tree.read(path)
        try:
            file.verify_length_and_hashes(raw)
        except LengthOrHashMismatchError as error:
            raise PublishError(f"{self.folder / path} is damaged: it is not what was signed") from error
        return raw

    def read_target(self, path: str) -> bytes:
        """A manifest, channel file or delta index that is listed now. Raises NotInRepository or PublishError."""
        state = self.state()
        for role in (state.releases, state.rollout):
            if path in role.signed.targets:
                return self._target(path, role.signed.targets[path])
        raise NotInRepository(path)

    def _target(self, path: str, target: TargetFile) -> bytes:
        raw = self.tree.read(target_path(path, target.hashes["sha256"]))
        try:
            target.verify_length_and_hashes(raw)
        except LengthOrHashMismatchError as error:
            raise PublishError(f"{path} of {self.folder} is damaged: it is not what was signed") from error
        return raw

    def releases(self) -> Mapping[ReleaseId, Release]:
        """Every release that is listed now, by its id, in the order of their sequence numbers."""
        listed = self.state().releases.signed.targets
        found = [manifest.parse(self._target(path, target)) for path, target in listed.items()]
        return {release.id: release for release in sorted(found, key=lambda release: release.sequence)}

    def channels(self) -> Mapping[ChannelName, Channel]:
        """Every channel by its name."""
        found = [channels.parse(raw) for raw in self._rollout("channels/")]
        return {channel.name: channel for channel in found}

    def deltas(self) -> tuple[Delta, ...]:
        """Every delta index that is listed now."""
        return tuple(deltas.parse(raw) for raw in self._rollout("deltas/"))

    def _rollout(self, prefix: str) -> Iterator[bytes]:
        listed = self.state().rollout.signed.targets
        return (self._target(path, target) for path, target in sorted(listed.items()) if path.startswith(prefix))

    def next_sequence(self) -> int:
        """The number of the next release; withdrawn ones keep theirs."""
        state = self.state()
        given = [target.custom["sequence"] for target in state.releases.signed.targets.values()]
        return max([*given, *(gone.sequence for gone in metadata.withdrawn(state).values())], default=0) + 1

    def root(self, version: int | None = None) -> bytes:
        """The root metadata, the newest if not said otherwise. Raises NotInRepository."""
        versions = self.tree.versions("root")
        return self.tree.read(metadata_path("root", version or versions[-1]))

    # --- changing -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else changes the repository while the block runs; may be nested."""
        if self._held:
            yield
            return
        with self.tree.lock():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def publish(
        self, change: Change, keyring: Keyring, *, now: float, releases: Metadata[Targets] | None = None
    ) -> Published:
        """Make a change, and sign anew what is due and whose keys are at hand. An empty change refreshes.

        `releases` is what `draft` made, signed elsewhere. Raises PublishError or KeyUnavailable; nothing has changed
        then that a device could see.
        """
        with self.writing():
            state = self.state()
            new: dict[str, Metadata[Any]] = {}
            if releases is not None:
                new[RELEASES] = self._fitting(state, releases)
            elif change.releases or change.withdraw or change.floors:
                new[RELEASES] = self._next_releases(state, change, now)
            if change.channels or change.deltas or change.drop:
                new[ROLLOUT] = self._next_rollout(state, change, now)
            self._check_rollout(new.get(RELEASES, state.releases).signed, change)
            self._renew(state, new, keyring, now, change.days)
            return self.finish(state, new, keyring, now=now, days=change.days)

    def draft(self, change: Change, *, now: float) -> Metadata[Targets]:
        """What `releases` has to sign for a change, for a key that is elsewhere. Raises PublishError."""
        with self.writing():
            return self._next_releases(self.state(), change, now)

    def _fitting(self, state: State, releases: Metadata[Targets]) -> Metadata[Targets]:
        wanted = self.tree.free_version(RELEASES)
        if releases.signed.version != wanted:
            raise PublishError(
                f"what was signed is version {releases.signed.version} of the list of releases, and"
                f" {wanted} would be the next: the repository has changed since; begin anew"
            )
        for path, target in releases.signed.targets.items():
            self._target(path, target)
        return releases

    def _next_releases(self, state: State, change: Change, now: float) -> Metadata[Targets]:
        version = self.tree.free_version(RELEASES)
        new = metadata.successor(state.releases, RELEASES, version=version, now=now, days=change.days)
        gone, floors = metadata.withdrawn(state), metadata.floors(state)
        for release in change.releases:
            path, raw = release_target(release.id), release.to_bytes()
            if path in new.signed.targets or release.id in gone:
                raise PublishError(f"{release.id} was published before, and an id is never given twice")
            if release.sequence < self.next_sequence():
                raise PublishError(f"{release.id} has the number {release.sequence}, which is not a new one")
            entry = metadata.release_entry(path, release, raw)
            self.tree.create(target_path(path, entry.hashes["sha256"]), raw)
            new.signed.targets[path] = entry
        for release_id in change.withdraw:
            target = new.signed.targets.pop(release_target(release_id), None)
            if target is None:
                raise PublishError(f"{release_id} is not listed")
            gone[release_id] = Withdrawn(target.custom["sequence"], target.hashes["sha256"])
        for model, sequence in change.floors.items():
            if sequence < floors.get(model, 0):
                raise PublishError(f"the floor of {model} is {floors[model]}, and floors never fall")
            floors[model] = sequence
        new.signed.unrecognized_fields[metadata.FLOORS] = floors
        new.signed.unrecognized_fields[metadata.WITHDRAWN] = {
            name: {"sequence": one.sequence, "manifest_sha256": one.manifest_sha256} for name, one in gone.items()
        }
        return new

    def _next_rollout(self, state: State, change: Change, now: float) -> Metadata[Targets]:
        version = self.tree.free_version(ROLLOUT)
        new = metadata.successor(state.rollout, ROLLOUT, version=version, now=now, days=change.days)
        for path in change.drop:
            new.signed.targets.pop(path, None)
        files = [(channel_target(one.name), one.to_bytes()) for one in change.channels]
        files += [(delta_target(one.base, one.release), one.to_bytes()) for one in change.deltas]
        for path, raw in files:
            sha256 = hashlib.sha256(raw).hexdigest()
            self.tree.create(target_path(path, sha256), raw)
            new.signed.targets[path] = TargetFile(len(raw), {"sha256": sha256}, path)
        return new

    def _check_rollout(self, releases: Targets, change: Change) -> None:
        listed = {path: target.custom for path, target in releases.targets.items()}
        for delta in change.deltas:
            for release_id in (delta.base, delta.release):
                if release_target(release_id) not in listed:
                    raise PublishError(
                        f"the delta from {delta.base} to {delta.release} needs {release_id} to be listed"
                    )
        floors = releases.unrecognized_fields.get(metadata.FLOORS, {})
        now = self.channels()
        for channel in change.channels:
            if channel.name in now and channel.version <= now[channel.name].version:
                raise PublishError(f"channel {channel.name} was changed meanwhile: look at it, and say it again")
        for channel in {**now, **{one.name: one for one in change.channels}}.values():
            check_channel(channel, listed, floors, old=now.get(channel.name))

    def _renew(self, state: State, new: dict[str, Metadata[Any]], keyring: Keyring, now: float, days: int) -> None:
        """Add what is due, if it can be signed here."""
        for name in ("targets", RELEASES, ROLLOUT):
            lasts = state.role(name).signed.expires >= metadata.at(now + days * metadata.DAY_S)
            version = self.tree.free_version(name)
            # Of a publish that was cut off devices may have seen more than a power cut left: their next list of
            # versions must not have an older one of any role.
            is_newest = version == state.role(name).signed.version + 1
            if name in new or (lasts and is_newest and not metadata.is_due(state, name, now)):
                continue
            metadata_ = metadata.successor(state.role(name), name, version=version, now=now, days=days)
            who = metadata.authority(name, state.root.signed, state.targets.signed)
            with contextlib.suppress(KeyUnavailable):
                if metadata.sign(metadata_, who, keyring):
                    new[name] = metadata_

    def finish(
        self,
        state: State,
        new: dict[str, Metadata[Any]],
        keyring: Keyring,
        *,
        now: float,
        days: int = 0,
        root: Metadata[Root] | None = None,
    ) -> Published:
        """Sign everything, then write it: `new` roles, a snapshot, the timestamp, and a `root` that was signed already.

        Whoever still has the old root must be able to believe what is written before the new one is, and whoever has
        the new one what was written then: both signatures are made where keys changed. Only if the old key is lost
        the new root goes first, and devices wait in between. Raises KeyUnavailable before anything is written.
        """
        sealed = _Sealed(state, new, keyring, root)
        raw = {name: sealed.seal(name, one) for name, one in new.items()}
        free = self.tree.free_version("snapshot")
        snapshot = metadata.successor(state.snapshot, "snapshot", version=free, now=now, days=days)
        for name, data in raw.items():
            snapshot.signed.meta[f"{name}.json"] = metadata.meta_file(new[name].signed.version, data)
        raw["snapshot"] = sealed.seal("snapshot", snapshot)
        version = state.timestamp.signed.version + (1 if self.tree.has(TIMESTAMP) else 0)
        version = max(version, free)  # of one that a power cut took back devices may have seen the number
        timestamp = metadata.successor(state.timestamp, "timestamp", version=version, now=now, days=days)
        timestamp.signed.unrecognized_fields[metadata.ISSUED] = metadata.next_issued(state, now)
        timestamp.signed.snapshot_meta = metadata.meta_file(snapshot.signed.version, raw["snapshot"])
        last = sealed.seal("timestamp", timestamp)
        if root is not None and not sealed.old_signed:
            self._write_root(root)
        for name in (*new, "snapshot"):
            one = snapshot if name == "snapshot" else new[name]
            self.tree.create(metadata_path(name, one.signed.version), raw[name])
        self.tree.show(last)
        if root is not None and sealed.old_signed:
            self._write_root(root)
        signed = (*(("root",) if root is not None else ()), *new, "snapshot", "timestamp")
        return Published(signed=signed, due=self.due(now))

    def _write_root(self, root: Metadata[Root]) -> None:
        self.tree.create(metadata_path("root", root.signed.version), root.to_bytes())

    def due(self, now: float) -> tuple[str, ...]:
        """Roles that are to be signed anew soon, or whose signatures do not count any more."""
        state = self.state()
        return tuple(name for name in metadata.ROLES if metadata.is_due(state, name, now))


class _Sealed:
    """Signs the parts of one change by the keys that count after it, and as far as they are at hand before it."""

    def __init__(
        self, state: State, new: Mapping[str, Metadata[Any]], keyring: Keyring, root: Metadata[Root] | None
    ) -> None:
        self._targets: Targets = new.get("targets", state.targets).signed
        self._keyring = keyring
        self._old, self._new = state.root.signed, (root or state.root).signed
        self.old_signed = True

    def seal(self, name: str, one: Metadata[Any]) -> bytes:
        """The metadata as a file. Raises KeyUnavailable, or PublishError for a signature that is none."""
        metadata.require(one, name, metadata.authority(name, self._new, self._targets), self._keyring)
        delegator = self._new if name in self._new.roles else self._targets
        try:
            delegator.verify_delegate(name, one.signed_bytes, one.signatures)
        except UnsignedMetadataError as error:
            raise PublishError(f"a signature of {name} is wrong: {error}") from error
        if name in self._old.roles and self._old is not self._new:
            self.old_signed &= self._signed_by_old(name, one)
        return one.to_bytes()

    def _signed_by_old(self, name: str, one: Metadata[Any]) -> bool:
        try:
            return metadata.sign(one, metadata.authority(name, self._old, None), self._keyring)
        except KeyUnavailable:
            return False
