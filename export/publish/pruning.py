"""What a repository has on its disk and no longer needs.

Needed are the packs of listed releases and deltas, everything that is listed, every root, and of each role's metadata
the last few: a device that began to look a moment ago must find what its timestamp named.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.release.names import PACK_SUFFIX, delta_target, pack_path, target_path
from export.publish.metadata import ROLES
from export.publish.repository import Repository
from export.publish.tree import metadata_path

KEPT_VERSIONS = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and number of packs that are needed, and files (of any kind) that are not."""

    packs: int
    pack_bytes: int
    unneeded: tuple[Path, ...]
    unneeded_bytes: int


def usage(repository: Repository) -> Usage:
    """Look at every file. Raises PublishError."""
    packs = {pack.sha256: pack.size for release in repository.releases().values() for pack in release.packs}
    packs |= {pack.sha256: pack.size for delta in repository.deltas() for pack in delta.packs}
    unneeded = tuple(_unneeded(repository, {pack_path(sha256) for sha256 in packs}))
    return Usage(len(packs), sum(packs.values()), unneeded, sum(path.stat().st_size for path in unneeded))


def prune(repository: Repository) -> Usage:
    """Delete what is not needed. A device that fetches a withdrawn release just now will have to begin anew."""
    with repository.writing():
        found = usage(repository)
        for path in found.unneeded:
            path.unlink()
        return found


def idle_deltas(repository: Repository) -> frozenset[str]:
    """Target paths of deltas that lead to, or from, what is not listed, or to what no channel offers any more.

    Those to a release that is newer than all that channels offer stay: it may be offered next.
    """
    releases, channels = repository.releases(), repository.channels().values()
    offered = {one for channel in channels for one in (channel.release, channel.previous, channel.abort_to)}
    newest = max((releases[one].sequence for one in offered if one is not None), default=0)
    return frozenset(
        delta_target(delta.base, delta.release)
        for delta in repository.deltas()
        if not {delta.base, delta.release} <= set(releases)
        or (delta.release not in offered and releases[delta.release].sequence < newest)
    )


def deltas_of(repository: Repository, release_id: str) -> frozenset[str]:
    """Target paths of deltas from or to a release."""
    pairs = ((delta.base, delta.release) for delta in repository.deltas())
    return frozenset(delta_target(*pair) for pair in pairs if release_id in pair)


def _unneeded(repository: Repository, packs: set[str]) -> Iterator[Path]:
    folder = repository.folder
    for path in sorted((folder / "packs").rglob(f"*{PACK_SUFFIX}")):
        if path.relative_to(folder).as_posix() not in packs:
            yield path
    for room in ("metadata", "targets", "packs"):  # what a publish was writing when it was cut off
        yield from sorted((folder / room).rglob(".*"))
    state = repository.state()
    targets = {**state.releases.signed.targets, **state.rollout.signed.targets}
    listed = {target_path(path, target.hashes["sha256"]) for path, target in targets.items()}
    for path in sorted((folder / "targets").rglob("*.json")):
        if path.relative_to(folder).as_posix() not in listed:
            yield path
    for name in set(ROLES) - {"root", "timestamp"}:
        served = state.role(name).signed.version
        kept = {served, *repository.tree.versions(name)[-KEPT_VERSIONS:]}
        for version in repository.tree.versions(name):
            if version not in kept:
                yield folder / metadata_path(name, version)
