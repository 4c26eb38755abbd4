"""Looking at a repository as a device would: metadata by python-tuf's client, every target, every pack.

The files come from the folder, or from the public URL, which is what counts: a mirror that is not up to date, a server
that compresses or hides what it has not heard of, shows here and not on devices.
"""

import datetime
import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edgekit.errors import CorruptRelease, NotInRepository, Unreachable, Untrusted, UsageError
from edgekit.files import safe_join
from edgekit.release import channel, delta, manifest
from edgekit.release.channel import MAX_CHANNEL_BYTES
from edgekit.release.delta import MAX_DELTA_BYTES
from edgekit.release.manifest import MAX_RELEASE_BYTES, Pack
from edgekit.release.names import RELEASES, ROLLOUT, pack_path, target_path
from export.publish.metadata import ROLES, at

Tell = Callable[[int, int], None]
"""Bytes that were looked at, of how many."""

_PIECE_BYTES = 1 << 20
_ATTEMPTS = 3
_TIMEOUT_S = 30.0
_BASE = "repository:/"
_LIMITS = {"releases": MAX_RELEASE_BYTES, "channels": MAX_CHANNEL_BYTES, "deltas": MAX_DELTA_BYTES}


class Place(Protocol):
    """Where a repository's files are."""

    @property
    def name(self) -> str:
        """For people."""

    def stream(self, path: str) -> Iterator[bytes]:
        """A file in pieces. Raises NotInRepository or Unreachable."""

    def size(self, path: str) -> int:
        """A file's size. Raises NotInRepository or Unreachable."""

    def ranges(self, path: str) -> bool:
        """Whether a part of a file can be had by itself."""


class FolderPlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """As `Place`."""
        return str(self._folder)

    def stream(self, path: str) -> Iterator[bytes]:
        """As `Place`."""
        try:
            with safe_join(self._folder, path).open("rb") as stream:
                while piece := stream.read(_PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise NotInRepository(f"{path}: {error.strerror or error}") from error

    def size(self, path: str) -> int:
        """As `Place`."""
        try:
            return safe_join(self._folder, path).stat().st_size
        except OSError as error:
            raise NotInRepository(path) from error

    def ranges(self, path: str) -> bool:
        """As `Place`."""
        return True


def _why(error: urllib3.exceptions.HTTPError) -> str:
    """What a person can do something about, of what a web server's client says."""
    reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    match reason:
        case urllib3.exceptions.NameResolutionError():
            return "no host of this name is known: is there a network?"
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return "nobody answers: is there a network?"
        case _:
            return str(reason)


class HttpPlace:
    """A web server."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            headers={"Accept-Encoding": "identity"}, timeout=_TIMEOUT_S, retries=urllib3.Retry(_ATTEMPTS)
        )

    @property
    def name(self) -> str:
        """As `Place`."""
        return urllib3.util.parse_url(self._url)._replace(auth=None).url

    def _ask(self, method: str, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        try:
            answer = self._pool.request(method, f"{self._url}/{path}", preload_content=False, headers=headers or None)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{self.name}: {_why(error)}") from error
        if answer.status in (403, 404, 410):
            answer.release_conn()
            raise NotInRepository(f"{path} ({self.name} answers {answer.status})")
        if answer.status not in (200, 206):
            answer.release_conn()
            raise Unreachable(f"{self.name} answers {answer.status} for {path}")
        return answer

    def stream(self, path: str) -> Iterator[bytes]:
        """As `Place`."""
        answer = self._ask("GET", path)
        try:
            yield from answer.stream(_PIECE_BYTES, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{self.name}: {path}: {_why(error)}") from error
        finally:
            answer.release_conn()

    def size(self, path: str) -> int:
        """As `Place`."""
        answer = self._ask("HEAD", path)
        answer.release_conn()
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else -1

    def ranges(self, path: str) -> bool:
        """As `Place`."""
        answer = self._ask("GET", path, **{"Range": "bytes=0-0", "Accept-Encoding": "identity"})
        answer.drain_conn() if answer.status == 206 else answer.close()
        return answer.status == 206


def place_of(repository: str) -> Place:
    """The place that a URL or a folder's path means. Raises UsageError for a registry's."""
    if repository.startswith("oci://"):
        raise UsageError(f"{repository}: a registry is looked at as a device does, with `edgekit sync --check --repo`.")
    return HttpPlace(repository) if repository.startswith(("http://", "https://")) else FolderPlace(Path(repository))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at. `ranges`: whether parts of packs can be had, which resuming and deltas live on."""

    place: str
    versions: Mapping[str, int]
    releases: int
    channels: int
    deltas: int
    packs: int
    pack_bytes: int
    ranges: bool


def shows(
    place: Place, root: bytes, repository: Path, *, now: float, tell: Tell, read: Collection[str] | None
) -> Verified:
    """Look at a mirror of a folder. Raises as `verify`; Unreachable too if it is whole, but behind the folder."""
    found = verify(place, root, now=now, tell=tell, read=read)
    here = verify(FolderPlace(repository), root, now=now, read=())
    if found.versions != here.versions:
        raise Unreachable(f"{place.name} still shows what was published before ({repository} is newer)")
    return found


class _Fetcher(FetcherInterface):
    """Hands a place's files to python-tuf."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def _fetch(self, url: str) -> Iterator[bytes]:
        pieces = self._place.stream(url.removeprefix(_BASE))
        try:
            first = next(pieces, b"")
        except NotInRepository as error:
            raise DownloadHTTPError(str(error), 404) from error

        def rest() -> Iterator[bytes]:
            yield first
            yield from pieces

        return rest()


def verify(
    place: Place, root: bytes, *, now: float, tell: Tell | None = None, read: Collection[str] | None = None
) -> Verified:
    """Look at everything that is listed. `root` is where trust begins.

    Every pack is read, or only those whose SHA-256 is in `read`: of the others the size must do. Raises Untrusted,
    CorruptRelease, NotInRepository or Unreachable for the first thing that is wrong.
    """
    targets, versions = _trusted(place, root, at(now))
    packs: dict[str, Pack] = {}
    counts = dict.fromkeys(_LIMITS, 0)
    for path, target in targets.items():
        kind = path.partition("/")[0]
        counts[kind] += 1
        packs.update({pack.sha256: pack for pack in _packs(kind, _target(place, path, target))})
    _check_packs(place, packs, packs if read is None else read, tell or (lambda _done, _total: None))
    return Verified(
        place=place.name,
        versions=versions,
        releases=counts["releases"],
        channels=counts["channels"],
        deltas=counts["deltas"],
        packs=len(packs),
        pack_bytes=sum(pack.size for pack in packs.values()),
        ranges=all(place.ranges(pack_path(sha256)) for sha256 in list(packs)[:1]),
    )


def _trusted(place: Place, root: bytes, now: datetime.datetime) -> tuple[dict[str, TargetFile], dict[str, int]]:
    """What the two delegated roles list, and every role's version."""
    with tempfile.TemporaryDirectory(prefix="edgekit-verify-") as folder:
        try:
            updater = Updater(
                folder,
                f"{_BASE}metadata/",
                fetcher=_Fetcher(place),
                config=UpdaterConfig(targets_max_length=16 << 20),
                bootstrap=root,
            )
            trusted = updater._trusted_set  # noqa: SLF001 - its clock is the machine's, and this rule takes `now`
            trusted.reference_time = now
            updater.refresh()
            for path in ("releases/none.json", "channels/none.json"):
                updater.get_targetinfo(path)
        except DownloadError as error:
            known = error.__cause__
            said = known.problem if isinstance(known, Unreachable) else f"{place.name}: {known or error}"
            raise Unreachable(said) from error
        except RepositoryError as error:
            raise Untrusted(f"{place.name}: {error}") from error
        versions = {name: trusted[name].version for name in ROLES}
        roles = [trusted[role] for role in (RELEASES, ROLLOUT)]
        return {path: target for role in roles for path, target in cast(Targets, role).targets.items()}, versions


def _target(place: Place, path: str, target: TargetFile) -> bytes:
    limit = _LIMITS.get(path.partition("/")[0], 0)
    if target.length > limit:
        raise Untrusted(f"{path} has {target.length:,} bytes, and {limit:,} are the limit")
    raw = b"".join(place.stream(target_path(path, target.hashes["sha256"])))
    try:
        target.verify_length_and_hashes(raw)
    except LengthOrHashMismatchError as error:
        raise CorruptRelease(f"{path} at {place.name}: {error}") from error
    return raw


def _packs(kind: str, raw: bytes) -> tuple[Pack, ...]:
    """The packs that a target names."""
    if kind == "channels":
        channel.parse(raw)
        return ()
    return manifest.parse(raw).packs if kind == "releases" else delta.parse(raw).packs


def _check_packs(place: Place, packs: Mapping[str, Pack], read: Collection[str], tell: Tell) -> None:
    done, total = 0, sum(pack.size for pack in packs.values())
    for sha256, pack in packs.items():
        path = pack_path(sha256)
        if sha256 not in read:
            if (size := place.size(path)) != pack.size:
                raise CorruptRelease(f"{path} at {place.name} has {size:,} bytes, not {pack.size:,}")
            done += pack.size
            continue
        digest, before = hashlib.sha256(), done
        for piece in place.stream(path):
            digest.update(piece)
            done += len(piece)
            tell(min(done, total), total)
        if done - before != pack.size or digest.hexdigest() != sha256:
            raise CorruptRelease(f"{path} at {place.name} is not what was published")
