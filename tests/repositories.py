"""A small signed repository in memory, which can be written to a folder, and which does what an attacker would.

Made by python-tuf's metadata API with Ed25519 keys of its own pure Python, so that a device's dependencies are enough.
Every role has a key of its own, derived from its name: `Key("releases")` is always the same one.

    repository = Repository()
    release = repository.add_release("tiny", "1.0", {"bundle.json": b"{}"})
    repository.set_channel("stable", release.id)
    repository.publish()
    repository.write(folder)     or     repository.source()

What was published stays in `files`, as on a real server; `dict(repository.files)` is a moment that can be gone back to.
"""

import copy
import datetime
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from securesystemslib._vendor.ed25519.ed25519 import publickey_unsafe, signature_unsafe
from securesystemslib.signer import Signature, Signer, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgekit.errors import CorruptRelease, NotInRepository
from edgekit.release import names
from edgekit.release.channel import Channel, Labels, RampStep
from edgekit.release.codec import difference, pack
from edgekit.release.delta import Delta, Difference
from edgekit.release.manifest import Chunk, HealthFloor, Kind, Pack, Release, ReleaseFile, Requires
from edgekit.release.provisioning import Provisioning

NOW = 1_800_000_000.0
DAY = 86_400.0
TOP = ("root", "timestamp", "snapshot", "targets")
ROLES = (*TOP, names.RELEASES, names.ROLLOUT)
ISSUED, FLOORS = "x-edgekit-issued", "x-edgekit-floors"
GRID = 1 << 20
PACK_BYTES = 8 << 20


# --- keys -------------------------------------------------------------------------------------


@functools.cache
def _public(seed: bytes) -> bytes:
    return bytes(publickey_unsafe(seed))  # type: ignore[no-untyped-call]


class Key(Signer):
    """An Ed25519 key that its name says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._seed = hashlib.sha256(name.encode()).digest()
        public = _public(self._seed)
        keyid = hashlib.sha256(public).hexdigest()
        self._key = SSlibKey(keyid, "ed25519", "ed25519", {"public": public.hex()})

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Any, secrets_handler: Any = None) -> "Key":
        raise NotImplementedError

    @property
    def public_key(self) -> SSlibKey:
        return self._key

    def sign(self, payload: bytes) -> Signature:
        signature = signature_unsafe(payload, self._seed, _public(self._seed))  # type: ignore[no-untyped-call]
        return Signature(self._key.keyid, bytes(signature).hex())


# --- the repository ---------------------------------------------------------------------------


class Repository:
    """Its signed parts may be changed at will before `publish` or `put` signs and stores them."""

    def __init__(self, *, now: float = NOW, prefix: str = "", threshold: int = 1, root_keys: int = 1) -> None:
        """Version 1 of every role, published. `prefix` makes its keys other ones; `now` is when it is made."""
        self.now = now
        self.files: dict[str, bytes] = {}
        self.made: dict[str, Release] = {}
        self.contents: dict[str, dict[str, bytes]] = {}
        """Bytes of every release's files."""
        self.keys: dict[str, list[Key]] = {role: [Key(f"{prefix}{role}")] for role in ROLES}
        self.keys["root"] = [Key(f"{prefix}root{i}") for i in range(root_keys)]
        self.root = Root(expires=self.until(730), consistent_snapshot=True)
        self.targets = Targets(expires=self.until(365))
        self.releases = Targets(expires=self.until(365), unrecognized_fields={FLOORS: {}})
        self.rollout = Targets(expires=self.until(90))
        self.snapshot = Snapshot(expires=self.until(30))
        self.timestamp = Timestamp(expires=self.until(30), unrecognized_fields={ISSUED: int(now)})
        self.targets.delegations = Delegations({}, {})
        for name, pattern in ((names.RELEASES, ["releases/*"]), (names.ROLLOUT, ["channels/*", "deltas/*"])):
            self.delegate(name, pattern)
        for role in ROLES:
            for key in self.keys[role]:
                self._delegator(role).add_key(key.public_key, role)
        self.root.roles["root"].threshold = threshold
        self.put("root")
        for role in ("targets", names.RELEASES, names.ROLLOUT):
            self.put(role)
            self._list(role)
        self._seal()

    def until(self, days: float) -> datetime.datetime:
        """So many days from `now`, as TUF writes expiry."""
        moment = datetime.datetime.fromtimestamp(self.now + days * DAY, datetime.UTC)
        return moment.replace(microsecond=0)

    def role(self, name: str) -> Any:
        """The signed part of a role."""
        return getattr(self, name)

    def delegate(self, name: str, paths: Sequence[str]) -> None:
        """Let a role sign targets of such paths."""
        self.delegate_from(self.targets, name, paths)

    def delegate_from(self, delegator: Targets, name: str, paths: Sequence[str], *, terminating: bool = True) -> None:
        """The same by any role of targets."""
        delegations = delegator.delegations
        assert delegations is not None
        assert delegations.roles is not None
        delegations.roles[name] = DelegatedRole(name, [], 1, terminating=terminating, paths=list(paths))

    def _delegator(self, role: str) -> Any:
        return self.root if role in TOP else self.targets

    # -- what is in it

    def add_release(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes],
        *,
        kind: Kind = "model",
        base: str | None = None,
        sequence: int | None = None,
        requires: Requires | None = None,
        health: HealthFloor | None = None,
    ) -> Release:
        """Cut, pack and list files. There must be a bundle.json or an adapter.json, of any content."""
        packing = _Packing()
        entries = tuple(packing.file(path, data) for path, data in sorted(files.items()))
        release = Release(
            format=1,
            kind=kind,
            name=name,
            version=version,
            sequence=sequence or len(self.made) + 1,
            files=entries,
            packs=packing.packs(self.files),
            requires=requires or Requires(),
            health=health or HealthFloor(soak_s=0),
            base=base,
        )
        self.contents[release.id] = dict(files)
        self.list_release(release)
        return release

    def add_folder(self, folder: Path, *, version: str | None = None, health: HealthFloor | None = None) -> Release:
        """A bundle or an adapter as it lies in a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        is_model = "bundle.json" in files
        about = msgspec.json.decode(files["bundle.json" if is_model else "adapter.json"])
        base = None if is_model else str(about["base"]["name"])
        return self.add_release(
            about["name"],
            version or about["version"],
            files,
            kind="model" if is_model else "adapter",
            base=base,
            health=health,
        )

    def list_release(self, release: Release, *, raw: bytes | None = None) -> None:
        """List a manifest in the role `releases`; `raw` are other bytes than its own."""
        custom = {
            "kind": release.kind,
            "model": release.name,
            "version": release.version,
            "sequence": release.sequence,
            "bytes": release.file_bytes,
        }
        self.made[release.id] = release
        self.add_target("releases", names.release_target(release.id), raw or release.to_bytes(), custom=custom)

    def unlist_release(self, release_id: str) -> None:
        """Take it off the list; its bytes stay."""
        del self.releases.targets[names.release_target(release_id)]

    def add_target(self, role: str, path: str, data: bytes, *, custom: Mapping[str, object] | None = None) -> None:
        """A target of a role, whatever it is."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = dict(custom)
        self.role(role).targets[path] = target
        self.files[names.target_path(path, target.hashes["sha256"]).replace("//", "/")] = data

    def set_channel(
        self,
        name: str,
        release: str,
        *,
        version: int = 1,
        previous: str | None = None,
        salt: str = "salt",
        ramp: tuple[RampStep, ...] = (),
        labels: Labels | None = None,
        pause: bool = False,
        abort_to: str | None = None,
        freshness: Literal["strict", "warn"] = "strict",
    ) -> Channel:
        """Who gets what."""
        channel = Channel(
            format=1,
            name=name,
            version=version,
            release=release,
            salt=salt,
            previous=previous,
            ramp=ramp,
            labels=labels or Labels(),
            pause=pause,
            abort_to=abort_to,
            freshness=freshness,
        )
        self.add_target("rollout", names.channel_target(name), channel.to_bytes())
        return channel

    def add_delta(self, base: Release, new: Release) -> Delta:
        """Differences of chunks of the same length at the same place of the same file."""
        packing = _Packing()
        old = {(file.path, offset): chunk for file, offset, chunk in base.chunks()}
        differences = []
        for file, offset, chunk in new.chunks():
            before = old.get((file.path, offset))
            if before is None or before.size != chunk.size or before.sha256 == chunk.sha256:
                continue
            end = offset + chunk.size
            found = difference(
                self.contents[new.id][file.path][offset:end], self.contents[base.id][file.path][offset:end]
            )
            codec, stored = pack(found)
            place = packing.add(stored)
            differences.append(Difference(chunk.sha256, before.sha256, *place, len(stored), codec))
        delta = Delta(
            format=1, base=base.id, release=new.id, packs=packing.packs(self.files), differences=tuple(differences)
        )
        self.add_target("rollout", names.delta_target(base.id, new.id), delta.to_bytes())
        return delta

    def set_floor(self, model: str, sequence: int) -> None:
        """What the role `releases` signs as the lowest that may run."""
        self.releases.unrecognized_fields[FLOORS][model] = sequence

    # -- signing

    def put(self, role: str, *, keys: Sequence[Key] | None = None) -> bytes:
        """Sign a role as it is and store it under its version. The bytes."""
        signed = self.role(role)
        raw = sign(signed, self.keys[role] if keys is None else keys)
        self.files[metadata_path(role, signed.version)] = raw
        return raw

    def publish(self, *roles: str) -> None:
        """New versions of the roles (none given: releases and rollout), then of snapshot and timestamp."""
        for role in roles or (names.RELEASES, names.ROLLOUT):
            self.role(role).version += 1
            self.put(role)
            self._list(role)
        self.refresh()

    def refresh(self) -> None:
        """New versions of snapshot and timestamp, valid for 30 days from `now`."""
        self.snapshot.version += 1
        self.timestamp.version += 1
        self._seal()

    def _seal(self) -> None:
        self.snapshot.expires = self.timestamp.expires = self.until(30)
        self.timestamp.unrecognized_fields[ISSUED] = int(self.now)
        raw = self.put("snapshot")
        self.timestamp.snapshot_meta = MetaFile(
            self.snapshot.version, len(raw), {"sha256": hashlib.sha256(raw).hexdigest()}
        )
        self.put("timestamp")

    def _list(self, role: str) -> None:
        raw = self.files[metadata_path(role, self.role(role).version)]
        self.snapshot.meta[f"{role}.json"] = MetaFile(
            self.role(role).version, len(raw), {"sha256": hashlib.sha256(raw).hexdigest()}
        )

    def rotate(self, role: str, *new: Key, publish: bool = True) -> None:
        """Give a role other keys: a new root, or new targets. The root that says so is signed by old and new ones."""
        delegator = self._delegator(role)
        before = self.keys[role]
        for key in before:
            delegator.revoke_key(key.public_key.keyid, role)
        for key in new:
            delegator.add_key(key.public_key, role)
        self.keys[role] = list(new)
        if delegator is self.root:
            self.root.version += 1
            self.put("root", keys=[*new, *before] if role == "root" else None)
        if publish:
            self.publish(*(("targets", role) if delegator is self.targets else (role,) if role == "targets" else ()))

    # -- going out

    def write(self, folder: Path) -> Path:
        """Everything as files of a folder."""
        for path, data in self.files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return folder

    def source(self) -> "MemorySource":
        """Serves `files` as they are now and become."""
        return MemorySource(self.files)

    def provisioning(self, *, root_version: int = 1, floors: Mapping[str, int] | None = None) -> Provisioning:
        """What a device is told."""
        root = self.files[metadata_path("root", root_version)].decode()
        return Provisioning(format=1, root=root, floors=dict(floors or {}))

    def copy(self) -> "Repository":
        """One that goes its own way from here."""
        return copy.deepcopy(self)


def metadata_path(role: str, version: int) -> str:
    """Where a role's file is in the repository."""
    return "metadata/timestamp.json" if role == "timestamp" else f"metadata/{version}.{role}.json"


def sign(signed: Root | Timestamp | Snapshot | Targets, keys: Sequence[Key]) -> bytes:
    """Metadata with one signature by each key."""
    metadata: Metadata[Any] = Metadata(signed)
    for key in keys:
        metadata.sign(key, append=True)
    return bytes(metadata.to_bytes())


class _Packing:
    """Stored chunks of one release or delta, each once."""

    def __init__(self) -> None:
        self._packs: list[bytearray] = [bytearray()]
        self._placed: dict[bytes, tuple[int, int]] = {}

    def add(self, stored: bytes) -> tuple[int, int]:
        """Pack and offset."""
        if stored not in self._placed:
            if len(self._packs[-1]) + len(stored) > PACK_BYTES:
                self._packs.append(bytearray())
            self._placed[stored] = (len(self._packs) - 1, len(self._packs[-1]))
            self._packs[-1] += stored
        return self._placed[stored]

    def file(self, path: str, data: bytes) -> ReleaseFile:
        chunks = []
        for start in range(0, len(data), GRID):
            piece = data[start : start + GRID]
            place = self.add(piece)
            chunks.append(Chunk(len(piece), hashlib.sha256(piece).hexdigest(), *place, len(piece)))
        return ReleaseFile(path, len(data), hashlib.sha256(data).hexdigest(), tuple(chunks))

    def packs(self, files: dict[str, bytes]) -> tuple[Pack, ...]:
        found = []
        for raw in self._packs:
            if raw:
                digest = hashlib.sha256(raw).hexdigest()
                files[names.pack_path(digest)] = bytes(raw)
                found.append(Pack(digest, len(raw)))
        return tuple(found)


# --- reading it -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """One reading of a source."""

    path: str
    start: int
    length: int


class MemorySource:
    """A Source over a mapping of files that notes what was asked, and lets a test answer with something else."""

    def __init__(self, files: Mapping[str, bytes], *, name: str = "memory") -> None:
        self.files = files
        self.asked: list[Asked] = []
        self.blamed = 0
        self.closed = False
        self.answer: Callable[[str], bytes | None] = lambda _path: None
        """Called first: other bytes for a path, None for those that are there, or an error to raise."""
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def holds(self) -> Literal["packs", "files"]:
        return "packs"

    def read(self, path: str, *, limit: int) -> bytes:
        data = self._of(path)
        self.asked.append(Asked(path, 0, len(data)))
        if len(data) > limit:
            raise CorruptRelease(f"{path} is larger than {limit:,} bytes")
        return data

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        data = self._of(path)
        if len(data) != size:
            raise CorruptRelease(f"{path} has {len(data):,} bytes, not {size:,}")
        for at in range(start, start + length, 64 << 10):
            piece = data[at : min(at + (64 << 10), start + length)]
            self.asked.append(Asked(path, at, len(piece)))
            yield piece

    def blame(self) -> None:
        self.blamed += 1

    def close(self) -> None:
        self.closed = True

    def _of(self, path: str) -> bytes:
        other = self.answer(path)
        if other is not None:
            return other
        if path not in self.files:
            raise NotInRepository(path)
        return self.files[path]

    def paths(self) -> list[str]:
        """What was asked for, in order, each time once."""
        return list(dict.fromkeys(asked.path for asked in self.asked))
