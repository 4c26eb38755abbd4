"""A device and its repository, for the attacks: restarts, what is on disk, and the check that nothing moved."""

from pathlib import Path

import pytest

from device_agent.sync.records import View
from device_agent.sync.trust import Trust
from edgekit.errors import SyncError
from edgekit.release.provisioning import Provisioning
from tests.repositories import NOW, MemorySource, Repository


def published() -> Repository:
    """A repository with two releases, whose every role has come to version 3, and root to 2."""
    repository = Repository()
    first = repository.add_release("tiny", "1.0", {"bundle.json": b"{}"})
    repository.set_channel("stable", first.id)
    repository.publish("targets", "releases", "rollout")
    second = repository.add_release("tiny", "2.0", {"bundle.json": b"{ }"})
    repository.set_channel("stable", second.id, version=2)
    repository.root.version += 1
    repository.put("root")
    repository.publish("targets", "releases", "rollout")
    return repository


class Device:
    """Trust in a folder, made anew for each call: nothing is remembered but what is on disk."""

    def __init__(
        self, home: Path, repository: Repository, *, now: float = NOW, provisioning: Provisioning | None = None
    ) -> None:
        self.folder = home / "trust"
        self.repository = repository
        self.now = now
        self.built = 0.0
        self.provisioning = provisioning or repository.provisioning()
        self.source = repository.source()
        self.notes: list[str] = []

    def trust(self) -> Trust:
        return Trust(self.folder, self.provisioning, clock=lambda: self.now, built=self.built)

    def refresh(self, source: MemorySource | None = None) -> View:
        trust = self.trust()
        try:
            return trust.refresh(source or self.source)
        finally:
            self.notes += trust.notes()

    def last(self) -> View | None:
        trust = self.trust()
        try:
            return trust.last()
        finally:
            self.notes += trust.notes()

    def state(self) -> dict[str, bytes]:
        """Every file."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }

    def generations(self) -> list[Path]:
        """The oldest first."""
        return sorted(self.folder.glob("gen-*"), key=lambda path: int(path.name.removeprefix("gen-")))

    def refuses(
        self, error: type[SyncError], source: MemorySource | None = None, *, match: str = "", progress: bool = False
    ) -> None:
        """A refresh fails, and what was trusted before still is.

        On disk nothing has changed; with `progress`, nothing but that what was verified before the failure has come to
        it, which is TUF's workflow (5.3.8, 5.4.5).
        """
        view, state = self.last(), self.state()
        with pytest.raises(error, match=match or None):
            self.refresh(source)
        assert self.last() == view
        after = self.state()
        if progress:
            kept = {path: raw for path, raw in state.items() if path.startswith(f"{self.generations()[-2].name}/")}
            assert kept.items() <= after.items()
        else:
            assert after == state


def serve(repository: Repository, **answers: bytes) -> MemorySource:
    """The repository's files, but other bytes for `metadata/<name>.json` (dots are written as underscores)."""
    source = repository.source()
    others = {f"metadata/{name.replace('_', '.')}.json": raw for name, raw in answers.items()}
    source.answer = others.get
    return source


def in_place_of(repository: Repository, path: str, raw: bytes) -> MemorySource:
    """The repository's files, but other bytes for one path."""
    source = repository.source()
    source.answer = {path: raw}.get
    return source
