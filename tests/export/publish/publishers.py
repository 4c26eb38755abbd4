"""A repository on a disk with keys beside it, and small releases for it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.release.channel import Channel
from edgekit.release.manifest import Chunk, Kind, Pack, Release, ReleaseFile
from edgekit.release.names import pack_path
from export.publish.channels import Wish, changed
from export.publish.keys import HOLDERS, Holder, Keyring, generate
from export.publish.repository import Change, Published, Repository
from export.publish.verify import FolderPlace, Verified, verify

NOW = 1_800_000_000.0
DAY = 86_400.0


def nobody(_what: str) -> None:
    """Knows no passphrase."""


@dataclass
class Publisher:
    """A repository, its keys, and a clock that a test moves."""

    repository: Repository
    folders: list[Path]
    now: float = NOW

    @property
    def keyring(self) -> Keyring:
        return Keyring.open(self.folders, nobody)

    def publish(self, change: Change) -> Published:
        return self.repository.publish(change, self.keyring, now=self.now)

    def add(self, name: str, version: str, *, channel: str | None = None, text: str = "weights") -> Release:
        """Publish a small release, and offer it."""
        new = release(self.repository, name, version, text=text)
        self.publish(Change(releases=(new,)))
        if channel is not None:
            self.set(channel, Wish(release=new.id))
        return new

    def set(self, name: str, wish: Wish) -> Channel:
        old = self.repository.channels().get(name)
        new = changed(name, old, wish, now=self.now, salt="salt")
        self.publish(Change(channels=(new,)))
        return new

    def verify(self, *, root: int = 1) -> Verified:
        """As a device that knows an old root."""
        return verify(FolderPlace(self.repository.folder), self.repository.root(root), now=self.now)


def publisher(folder: Path, *, root_keys: int = 1, root_threshold: int = 1) -> Publisher:
    """A new repository in `folder`/repo; its keys in `folder`/keys."""
    keys = folder / "keys"
    counts: Mapping[Holder, int] = {**dict.fromkeys(HOLDERS, 1), "root": root_keys}
    made = {holder: [generate(keys, holder, None) for _ in range(count)] for holder, count in counts.items()}
    keyring = Keyring.open([keys], nobody)
    repository = Repository.init(folder / "repo", made, keyring, root_threshold=root_threshold, now=NOW)
    return Publisher(repository, [keys])


def release(repository: Repository, name: str, version: str, *, text: str = "weights", kind: Kind = "model") -> Release:
    """A release of one file, whose pack is in the repository already."""
    data = f"{text} of {name} {version}".encode()
    sha256 = hashlib.sha256(data).hexdigest()
    pack = repository.folder / pack_path(sha256)
    pack.parent.mkdir(parents=True, exist_ok=True)
    pack.write_bytes(data)
    entry = "bundle.json" if kind == "model" else "adapter.json"
    return Release(
        format=1,
        kind=kind,
        name=name,
        version=version,
        sequence=repository.next_sequence(),
        files=(ReleaseFile(entry, len(data), sha256, (Chunk(len(data), sha256, 0, 0, len(data)),)),),
        packs=(Pack(sha256, len(data)),),
        base="tiny" if kind == "adapter" else None,
    )
