"""What this product's roles say: Views of releases and channels, and the small files that they name."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile

from device_agent.sync.records import Clock, Listed, Source, View
from device_agent.sync.trust.metadata import ATTEMPTS, TrustedMetadata
from device_agent.sync.trust.record import raised
from device_agent.sync.trust.trusted import Trusted
from edgekit.errors import CorruptRelease, NotInRepository, Untrusted
from edgekit.manifest import Name, Sha256
from edgekit.release.manifest import Kind
from edgekit.release.names import RELEASES, ROLLOUT, ReleaseId, target_path
from edgekit.release.provisioning import Provisioning

MOST_KEPT_BYTES = 4 << 20
"""Of one target: the manifest of a bundle of 4 GiB takes half a MB."""

MOST_KEPT_TARGETS = 64

_WANTED = ("releases/", "channels/")
"""Paths of which nothing is known but whose signer: looking for them makes python-tuf fetch both delegated roles."""

_SHA256 = re.compile(r"^[0-9a-f]{64}\Z")

log = logging.getLogger(__name__)


class _About(msgspec.Struct, frozen=True):
    """`custom` of a release; what a newer publisher adds is ignored."""

    kind: Kind
    model: Name
    version: Name
    sequence: int
    bytes: int


class _Entry(msgspec.Struct, frozen=True):
    id: ReleaseId
    sha256: Sha256
    about: _About


class Trust:
    """Metadata of the repository that a device was provisioned with, in `folder` (see the room's text)."""

    def __init__(self, folder: Path, provisioning: Provisioning, *, clock: Clock, built: float) -> None:
        self._provisioning = provisioning
        self._kept = folder / "targets"
        self._metadata = TrustedMetadata(
            folder, provisioning.root.encode(), clock=clock, built=built, delegated=(RELEASES, ROLLOUT)
        )

    def refresh(self, source: Source) -> View:
        """Fetch what is new. Metadata that is out of date is accepted as such: the view is not `fresh` then.

        Raises Untrusted, TrustLost, Unreachable, StorageFailed; what was trusted before then still is.
        """
        trusted, _ = self._metadata.refresh(source, wanted=_WANTED, stale=True)
        self._keep_only_listed(trusted)
        return self._view(trusted)

    def last(self) -> View | None:
        """What was trusted the last time, without any network; None before the first time. Raises TrustLost."""
        trusted = self._metadata.last()
        return None if trusted is None else self._view(trusted)

    def target(self, path: str, source: Source | None, *, limit: int) -> bytes:
        """A channel file, manifest or delta index as it was signed: kept from before, or fetched.

        Raises Untrusted if nobody who may has signed it, CorruptRelease if it is larger than `limit` or comes as other
        bytes, NotInRepository, Unreachable, TrustLost.
        """
        trusted = self._metadata.last()
        listed = None if trusted is None else _find(trusted, path)
        if listed is None:
            raise Untrusted(f"nobody who may has signed {path[:200]}")
        if listed.length > limit:
            raise CorruptRelease(f"{path} is larger than {limit:,} bytes")
        digest = listed.hashes["sha256"]
        kept = self._read_kept(digest, listed.length)
        if kept is not None:
            return kept
        if source is None:
            raise NotInRepository(f"{path} here, and no network was to be used")
        raw = _fetch(source, path, digest, listed.length)
        self._keep(digest, raw)
        return raw

    def reset(self) -> None:
        """Forget all but the provisioned root and floors. To be called by enrolment, and by nothing on a network."""
        self._metadata.reset()
        for path in self._kept_files():
            path.unlink(missing_ok=True)

    def notes(self) -> tuple[str, ...]:
        """What was found damaged, and made good, since the last call."""
        return self._metadata.notes()

    # -- views

    def _view(self, trusted: Trusted) -> View:
        record = self._metadata.record()
        now = self._metadata.now(record)
        floors = raised(self._provisioning.floors, {} if record is None else record.floors)
        rollout = [path for path in trusted.delegated[ROLLOUT].targets if trusted.may_list(ROLLOUT, path)]
        return View(
            now=now,
            clock_reliable=self._metadata.machine_time >= now,
            fresh=now < trusted.expires and not trusted.fallback,
            expires=trusted.expires,
            root_version=trusted.root.version,
            timestamp_version=trusted.timestamp.version,
            releases={listed.id: listed for listed in _releases(trusted)},
            floors=floors,
            channels=frozenset(_names(rollout, "channels/")),
            deltas=frozenset(path for path in rollout if path.startswith("deltas/")),
        )

    # -- kept targets: a cache by digest, which a power cut may spoil; each use verifies

    def _read_kept(self, digest: str, length: int) -> bytes | None:
        try:
            with (self._kept / digest).open("rb") as stream:
                raw = stream.read(length + 1)
        except OSError:
            return None
        return raw if _is(raw, digest, length) else None

    def _keep(self, digest: str, raw: bytes) -> None:
        """The oldest make room: a repository lists every release that ever was, and devices want the newest."""
        if len(raw) > MOST_KEPT_BYTES:
            return
        with contextlib.suppress(OSError):
            self._kept.mkdir(mode=0o700, exist_ok=True)
            oldest = sorted(self._kept_files(), key=lambda path: path.stat().st_mtime_ns)
            for path in oldest[: max(0, len(oldest) - MOST_KEPT_TARGETS + 1)]:
                path.unlink()
            (self._kept / digest).write_bytes(raw)

    def _keep_only_listed(self, trusted: Trusted) -> None:
        listed = {
            target.hashes.get("sha256") for role in trusted.delegated.values() for target in role.targets.values()
        }
        with contextlib.suppress(OSError):
            for path in self._kept_files():
                if path.name not in listed:
                    path.unlink()

    def _kept_files(self) -> list[Path]:
        return list(self._kept.iterdir()) if self._kept.is_dir() else []


def _releases(trusted: Trusted) -> Iterator[Listed]:
    """Releases as the role lists them. One that this version does not understand is none for it, and stops no other."""
    for path, target in trusted.delegated[RELEASES].targets.items():
        name = next(_names([path], "releases/"), None)
        if name is None or not trusted.may_list(RELEASES, path):
            continue
        try:
            entry = msgspec.convert(
                {"id": name, "sha256": target.hashes.get("sha256"), "about": target.unrecognized_fields.get("custom")},
                _Entry,
            )
        except msgspec.ValidationError as error:
            log.info("%s is listed in a way that is not understood: %s", path, error)
            continue
        about = entry.about
        if entry.id == f"{about.model}-{about.version}" and about.sequence >= 1 and about.bytes >= 0:
            yield Listed(
                id=entry.id,
                kind=about.kind,
                model=about.model,
                version=about.version,
                sequence=about.sequence,
                manifest_sha256=entry.sha256,
                manifest_bytes=target.length,
                file_bytes=about.bytes,
            )


def _names(paths: list[str], folder: str) -> Iterator[str]:
    """`name` of `folder/name.json`."""
    return (path[len(folder) : -5] for path in paths if path.startswith(folder) and path.endswith(".json"))


def _find(trusted: Trusted, path: str) -> TargetFile | None:
    """A target that the one role that may has signed. What `targets` itself lists is of no use here."""
    for role, signed in trusted.delegated.items():
        found = signed.targets.get(path)
        if found is not None and trusted.may_list(role, path) and _SHA256.match(found.hashes.get("sha256", "")):
            return found
    return None


def _fetch(source: Source, path: str, digest: str, length: int) -> bytes:
    """From whichever mirror has it as it was signed."""
    for attempt in range(ATTEMPTS):
        try:
            raw = source.read(target_path(path, digest), limit=length)
            if _is(raw, digest, length):
                return raw
            raise CorruptRelease(f"{path} is not what was signed")
        except CorruptRelease:
            source.blame()
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the loop returns or raises")


def _is(raw: bytes, digest: str, length: int) -> bool:
    return len(raw) == length and hashlib.sha256(raw).hexdigest() == digest
