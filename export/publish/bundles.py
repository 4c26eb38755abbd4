"""Offline bundles: which part of a repository certain devices need. Pure, but for `shelf_of`, which reads one.

The same tree, a subset, as signed: all metadata that a device follows from any root on, the channels, the manifests
and differences that they lead to, and of the packs those that such devices lack. What a device has it said in its
report (`have`), or a person says ("--since"): a bundle for those who have 1.0 is small, and tells everybody else what
it lacks for them. One bundle serves many devices at many versions: it holds what any of them needs.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgekit.errors import PublishError
from edgekit.release.channel import Channel, Device, matches, percent_at
from edgekit.release.channel import parse as parse_channel
from edgekit.release.delta import Delta
from edgekit.release.delta import parse as parse_delta
from edgekit.release.manifest import Chunk, Pack, Release
from edgekit.release.manifest import parse as parse_release
from edgekit.release.names import (
    MOST_PATH_CHARS,
    ChannelName,
    ReleaseId,
    channel_target,
    delta_target,
    pack_path,
    release_target,
    target_path,
    twins,
    unportable,
)
from edgekit.release.reports import Report
from export.publish.metadata import ROLES
from export.publish.repository import Repository
from export.publish.tree import TIMESTAMP, metadata_path

MOST_NAME_CHARS = 255
"""FAT has no longer name."""

EVERYBODY = "new devices, and any other"


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of a bundle: its path there and in the repository, and what it must be. A small one is read already."""

    path: str
    size: int
    sha256: str
    raw: bytes | None = None


class Shelf:
    """A repository at one moment: bytes of its metadata by path, and of what is listed by TUF target path.

    `expires` is when the first of the roles does (Unix seconds). Manifests are parsed when they are asked for: a
    repository may hold hundreds, and one of a large model takes some megabytes.
    """

    def __init__(self, metadata: Mapping[str, bytes], targets: Mapping[str, bytes], expires: float) -> None:
        self.metadata = metadata
        self.targets = targets
        self.expires = expires
        found = (parse_channel(raw) for path, raw in targets.items() if path.startswith("channels/"))
        self.channels: Mapping[ChannelName, Channel] = {channel.name: channel for channel in found}
        self._releases: dict[ReleaseId, Release] = {}

    def has(self, release: ReleaseId) -> bool:
        """Whether it is listed."""
        return release_target(release) in self.targets

    def release(self, release: ReleaseId) -> Release:
        """The manifest. Raises PublishError if it is not listed."""
        if not self.has(release):
            raise PublishError(f"{release} is not in the repository")
        if release not in self._releases:
            self._releases[release] = parse_release(self.targets[release_target(release)])
        return self._releases[release]

    def delta(self, base: ReleaseId, release: ReleaseId) -> Delta | None:
        """The differences between two releases, if there are any."""
        raw = self.targets.get(delta_target(base, release))
        return None if raw is None else parse_delta(raw)


@dataclass(frozen=True, slots=True)
class Group:
    """Devices that have the same releases, and so need the same. `device` is one of them, None: any there may be."""

    name: str
    have: frozenset[ReleaseId]
    devices: tuple[str, ...] = ()
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """What a bundle brings a group: a release, and how many bytes of it a device reads."""

    group: Group
    release: ReleaseId
    bytes: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a bundle in the order in which they are copied, and whom it is for."""

    pieces: tuple[Piece, ...]
    fits: tuple[Fit, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Need:
    """What a device lacks of a release: whole pack files (a bundle has no others), and the bytes that it reads."""

    packs: frozenset[Pack]
    bytes: int


# --- whom it is for ---------------------------------------------------------------------------


def groups_since(releases: Sequence[ReleaseId], shelf: Shelf) -> tuple[Group, ...]:
    """Devices that have one of these. Raises PublishError for a release that is not listed."""
    for release in releases:
        if not shelf.has(release):
            raise PublishError(f"{release} is not in the repository: there is no telling what those who have it lack")
    return tuple(Group(f"devices that have {release}", frozenset({release})) for release in releases)


def groups_of(reports: Iterable[Report], silent: Iterable[Device]) -> tuple[Group, ...]:
    """Devices by what they said that they have; those that never said anything are taken to have nothing."""
    devices = [(Device(id=one.device, labels=one.labels), frozenset(one.have)) for one in reports]
    devices += [(device, frozenset()) for device in silent]
    found: dict[tuple[frozenset[str], tuple[tuple[str, str], ...]], list[Device]] = {}
    for device, have in devices:
        found.setdefault((have, tuple(sorted(device.labels.items()))), []).append(device)
    return tuple(
        Group(_called(members, have), have, tuple(sorted(one.id for one in members)), members[0])
        for (have, _), members in sorted(found.items(), key=lambda item: (sorted(item[0][0]), item[0][1]))
    )


def _called(members: Sequence[Device], have: frozenset[str]) -> str:
    who = members[0].id if len(members) == 1 else f"{len(members)} devices"
    return f"{who} with {', '.join(sorted(have)) or 'nothing'}"


# --- what they need ---------------------------------------------------------------------------


def select(
    shelf: Shelf,
    groups: Sequence[Group],
    *,
    now: float,
    channels: Sequence[ChannelName] = (),
    releases: Sequence[ReleaseId] = (),
) -> Selection:
    """The files that these groups need of these channels (none said: all), and of `releases` besides.

    No groups at all are devices that have nothing. Raises PublishError for a channel or a release that is not there,
    and for names that not every stick can hold.
    """
    chosen = _channels(shelf, channels)
    targets = {channel_target(one.name): shelf.targets[channel_target(one.name)] for one in chosen}
    packs: set[Pack] = set()
    fits: list[Fit] = []
    for group in groups or (Group(EVERYBODY, frozenset()),):
        for release in dict.fromkeys((*_wanted(chosen, group, now), *releases)):
            need, paths = _need(shelf, group, release)
            packs |= need.packs
            targets |= {path: shelf.targets[path] for path in paths}
            fits.append(Fit(group, release, need.bytes + sum(len(shelf.targets[path]) for path in paths)))
    return Selection(_pieces(shelf, packs, targets), tuple(fits))


def _need(shelf: Shelf, group: Group, release: ReleaseId) -> tuple[Need, list[str]]:
    """What a group lacks of a release, and the targets that lead to it."""
    if release in group.have:
        return Need(frozenset(), 0), [release_target(release)]
    deltas = [delta for base in sorted(group.have) if (delta := shelf.delta(base, release)) is not None]
    have = [shelf.release(one) for one in sorted(group.have) if shelf.has(one)]
    paths = [release_target(release), *(delta_target(delta.base, delta.release) for delta in deltas)]
    return needed(shelf.release(release), have, deltas), paths


def _channels(shelf: Shelf, names: Sequence[ChannelName]) -> tuple[Channel, ...]:
    for name in names:
        if name not in shelf.channels:
            raise PublishError(f"there is no channel {name}; there are: {', '.join(sorted(shelf.channels)) or 'none'}")
    return tuple(shelf.channels[name] for name in (names or sorted(shelf.channels)))


def _wanted(channels: Iterable[Channel], group: Group, now: float) -> Iterator[ReleaseId]:
    """What a group may come to want while the bundle is on its way: a device's turn may come, and a pause may end."""
    for channel in channels:
        if group.device is not None and not matches(channel.labels, group.device):
            continue
        if channel.abort_to is not None:
            yield channel.abort_to
            continue
        yield channel.release
        if channel.previous is not None and not group.have and percent_at(channel.ramp, now) < 100:
            yield channel.previous  # for those whose turn has not come, and that have nothing


def needed(release: Release, have: Iterable[Release], deltas: Iterable[Delta]) -> Need:
    """What a device lacks that has certain releases, if it goes the ways that the agent would go.

    A chunk that it has costs nothing; else the smallest difference from one that it has, if that is smaller than the
    chunk; else the chunk (device_agent/sync/content/plan.py).
    """
    present = {chunk.sha256 for one in have for _, _, chunk in one.chunks()}
    differences: dict[str, tuple[int, Pack]] = {}
    for delta in deltas:
        for one in delta.differences:
            known = differences.get(one.chunk)
            if one.base in present and (known is None or one.stored < known[0]):
                differences[one.chunk] = one.stored, delta.packs[one.pack]
    lacking: dict[str, Chunk] = {chunk.sha256: chunk for _, _, chunk in release.chunks() if chunk.sha256 not in present}
    ways = [_way(chunk, release, differences.get(sha256)) for sha256, chunk in lacking.items()]
    return Need(frozenset(pack for _, pack in ways), sum(stored for stored, _ in ways))


def _way(chunk: Chunk, release: Release, difference: tuple[int, Pack] | None) -> tuple[int, Pack]:
    if difference is not None and difference[0] < chunk.stored:
        return difference
    return chunk.stored, release.packs[chunk.pack]


# --- files ------------------------------------------------------------------------------------


def _pieces(shelf: Shelf, packs: Iterable[Pack], targets: Mapping[str, bytes]) -> tuple[Piece, ...]:
    """In the order of a publish: what is named by others first, and `timestamp.json` last."""
    found = [Piece(pack_path(pack.sha256), pack.size, pack.sha256) for pack in sorted(packs, key=lambda p: p.sha256)]
    found += [_small(target_path(path, _sha256(raw)), raw) for path, raw in sorted(targets.items())]
    found += [_small(path, raw) for path, raw in sorted(shelf.metadata.items()) if path != TIMESTAMP]
    found.append(_small(TIMESTAMP, shelf.metadata[TIMESTAMP]))
    for piece in found:
        if problem := stick_problem(piece.path):
            raise PublishError(f"{piece.path} cannot be on every stick: {problem}. A shorter name or version helps")
    if pair := twins(piece.path for piece in found):
        raise PublishError(f"{pair[0]} and {pair[1]} are one file on a stick, where case does not count")
    return tuple(found)


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _small(path: str, raw: bytes) -> Piece:
    return Piece(path, len(raw), _sha256(raw), raw)


def stick_problem(path: str) -> str | None:
    """Why a path cannot be on a stick with FAT, or not be opened by Windows; None if it can."""
    parts = path.split("/")
    if any(len(part) > MOST_NAME_CHARS for part in parts):
        return f"a name is longer than {MOST_NAME_CHARS} characters"
    # The grammar of what a release holds is stricter about length; of a long name its end is what matters else.
    return next((why for part in parts if (why := unportable(part[-MOST_PATH_CHARS:]))), None)


def shelf_of(repository: Repository) -> Shelf:
    """What a repository holds now. Raises PublishError, NotInRepository or CorruptRelease if it is damaged."""
    with repository.writing():  # so that no publish comes in between
        state = repository.state()
        metadata = {metadata_path("root", v): repository.root(v) for v in repository.tree.versions("root")}
        metadata[TIMESTAMP] = repository.tree.read(TIMESTAMP)
        for name in ROLES:
            if name not in ("root", "timestamp"):
                path = metadata_path(name, state.role(name).signed.version)
                metadata[path] = repository.tree.read(path)
        listed = {**state.releases.signed.targets, **state.rollout.signed.targets}
        targets = {path: _read(repository, path, target.hashes["sha256"]) for path, target in listed.items()}
    return Shelf(metadata, targets, min(state.role(name).signed.expires.timestamp() for name in ROLES))


def _read(repository: Repository, path: str, sha256: str) -> bytes:
    raw = repository.tree.read(target_path(path, sha256))
    if _sha256(raw) != sha256:
        raise PublishError(f"{path} of {repository.folder} is damaged: it is not what was signed")
    return raw
