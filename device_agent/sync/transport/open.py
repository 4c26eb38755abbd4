"""From what people write as a repository to a source."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from device_agent.sync.records import Clock, LinkSettings, Source, Stop
from device_agent.sync.transport.address import parse
from device_agent.sync.transport.folder import FolderSource
from device_agent.sync.transport.http import HttpSource
from device_agent.sync.transport.mirrors import Mirror, Mirrors
from device_agent.sync.transport.oci import OciSource, Registry, address_of
from device_agent.sync.transport.surroundings import Surroundings
from device_agent.sync.transport.tar import TarSource
from device_agent.sync.transport.throttle import Throttle
from device_agent.sync.transport.web import Web
from edgekit.errors import UsageError
from edgekit.release import oci


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What opening a mirror needs to know. `friends` are the hosts of all mirrors: one may redirect to another."""

    least_bytes_per_s: float
    piece_bytes: int
    friends: frozenset[str]
    surroundings: Surroundings


def open_source(
    repositories: Sequence[str],
    *,
    settings: LinkSettings,
    stop: Stop,
    clock: Clock = time.time,
    surroundings: Surroundings | None = None,
) -> Source:
    """The mirrors as one source, the best first. Nothing is asked yet.

    A repository is http://, https:// or file:// with a path, oci:// with a registry's reference, a folder, or a .tar
    file. Raises UsageError.
    """
    if not repositories:
        raise UsageError("No repository is given: a URL, a folder or a .tar file.")
    around = surroundings or Surroundings(clock=clock, environment=os.environ)
    throttle = Throttle(settings.most_bytes_per_s, settings.windows, stop=stop, surroundings=around)
    if len({scheme_of(text) == "oci" for text in repositories}) > 1:
        raise UsageError("A registry (oci://) holds files and other repositories packs: mirrors are all of one kind.")
    hosts = (parse(text).host for text in repositories if scheme_of(text) in ("http", "https"))
    most = settings.most_bytes_per_s or float("inf")
    way = Way(
        least_bytes_per_s=min(settings.least_bytes_per_s, most / 2),
        piece_bytes=throttle.piece_bytes,
        friends=frozenset(hosts),
        surroundings=around,
    )
    mirrors = [_mirror(text, way) for text in repositories]
    return Mirrors(mirrors, throttle=throttle, stop=stop, surroundings=around)


def scheme_of(text: str) -> str:
    """What stands before `://`, or "" for a path (also of Windows: C:/...)."""
    scheme, mark, _ = text.partition("://")
    return scheme.lower() if mark and len(scheme) > 1 else ""


def _mirror(text: str, way: Way) -> Mirror:
    scheme = scheme_of(text)
    if scheme not in SCHEMES:
        raise UsageError(
            f"{scheme}:// is no way to reach a repository. There are: "
            f"{', '.join(f'{known}://' for known in SCHEMES if known)}, a folder, and a .tar file."
        )
    return SCHEMES[scheme](text, way)


def _web(text: str, way: Way) -> Mirror:
    web = Web(parse(text), surroundings=way.surroundings, least_bytes_per_s=way.least_bytes_per_s, friends=way.friends)
    source = HttpSource(web, piece_bytes=way.piece_bytes)
    return Mirror(source, resting=source)


def _registry(text: str, way: Way) -> Mirror:
    user, _, rest = text.removeprefix(oci.SCHEME).rpartition("@")
    reference = oci.parse_reference(rest)
    secret = parse(f"https://{user}@{reference.host}").secret if user else None
    registry = Registry(
        address_of(reference, secret), surroundings=way.surroundings, least_bytes_per_s=way.least_bytes_per_s
    )
    source = OciSource(reference, registry, piece_bytes=way.piece_bytes)
    return Mirror(source, resting=source)


def _file_url(text: str, way: Way) -> Mirror:
    parts = urlsplit(text)
    if parts.netloc.lower() not in ("", "localhost") and sys.platform != "win32":
        raise UsageError(f"{text}: a file:// address names a folder of this machine: file:///path.")
    return _path(url2pathname(parts.path), way)


def _path(text: str, _way: Way) -> Mirror:
    if not text:
        raise UsageError("The address of a repository is empty.")
    path = Path(text).expanduser()
    name = path.name.lower()
    if name.endswith((".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")):
        raise UsageError(f"{path} is compressed: a repository in one file is a plain .tar, which is read in place.")
    return Mirror(TarSource(path) if name.endswith(".tar") else FolderSource(path))


SCHEMES: Mapping[str, Callable[[str, Way], Mirror]] = {
    "https": _web,
    "http": _web,
    "oci": _registry,
    "file": _file_url,
    "": _path,
}
"""How a repository is opened, by what stands before `://`."""
