"""Metadata on its way in: fetched from a Source for python-tuf, and bounded before anything parses it.

A stranger on the network may answer with anything, and signatures can only be looked at after parsing. So sizes, depth,
counts and JSON's doubtful corners are checked first; what is refused here costs neither memory nor time.
"""

import json
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from device_agent.sync.records import Source
from edgekit.errors import CorruptRelease, NotInRepository, Untrusted

MAX_ROOT_BYTES = 512 << 10
MAX_TIMESTAMP_BYTES = 16 << 10
MAX_METADATA_BYTES = 2 << 20
MAX_SIGNATURES = 64
MAX_DEPTH = 24
MAX_CONTAINERS = 60_000
"""Lists and objects of one file: a release needs three."""

_LIMITS: Mapping[str, int] = {"timestamp": MAX_TIMESTAMP_BYTES, "root": MAX_ROOT_BYTES}


class SourceFetcher(FetcherInterface):
    """python-tuf's way to a Source. Our own errors pass through it; 404 is the one that it understands."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, MAX_METADATA_BYTES)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """A metadata file, bounded and plain. Nothing goes through temporary files."""
        limit = min(max_length, _LIMITS.get(_role(url), MAX_METADATA_BYTES))
        try:
            raw = self._source.read(url, limit=limit)
        except NotInRepository as error:
            raise DownloadHTTPError(f"it does not have {error.problem}", 404) from error
        except CorruptRelease as error:
            raise Untrusted(f"{url}: {error}"[:500]) from error
        if len(raw) > limit:
            raise Untrusted(f"{url} is larger than {limit:,} bytes")
        check(raw, name=url)
        return raw


def _role(url: str) -> str:
    """Role of `metadata/3.root.json`."""
    name = unquote(url.rpartition("/")[2]).removesuffix(".json")
    version, dot, rest = name.partition(".")
    return rest if dot and version.isdecimal() else name


def check(raw: bytes, *, name: str) -> None:
    """Raises Untrusted for what no honest signer writes: too deep, too many parts, NaN, an object with a name twice."""
    if raw.count(b"{") + raw.count(b"[") > MAX_CONTAINERS:
        raise Untrusted(f"{name} has more than {MAX_CONTAINERS:,} parts")
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Untrusted(f"{name} is no plain JSON: {error}"[:500]) from error
    if not isinstance(found, dict) or not isinstance(found.get("signatures"), list):
        raise Untrusted(f"{name} is not signed metadata")
    if len(found["signatures"]) > MAX_SIGNATURES:
        raise Untrusted(f"{name} has more than {MAX_SIGNATURES} signatures")
    if _deeper_than(found, MAX_DEPTH):
        raise Untrusted(f"{name} is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON")


def _deeper_than(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterator[object]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (part for part in parts if isinstance(part, dict | list))
