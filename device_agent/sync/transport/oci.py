"""A repository in an OCI registry: one release to a tag, laid out as edgekit/release/oci.py says.

The tag's manifest says which blobs are files of the signed repository. Content is read as ranges of the blobs that are
the release's files, by their digests, which come from the signed manifest and not from the registry. The registry's
own digests are not believed: whatever a blob has is held against what was signed, as with any other source.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from typing import Literal
from urllib.parse import urlencode

import msgspec

from device_agent.sync.records import Source
from device_agent.sync.transport.address import Address, parse
from device_agent.sync.transport.http import HttpSource
from device_agent.sync.transport.surroundings import Surroundings
from device_agent.sync.transport.throttle import PIECE_BYTES
from device_agent.sync.transport.web import Answer, Web
from edgekit.errors import CorruptRelease, NotAdmitted, NotInRepository, UsageError
from edgekit.release import oci
from edgekit.release.oci import Reference

NEWEST = "metadata/timestamp.json"
"""Whoever reads this wants to see the tag as it is now."""

MAX_LAYERS = 20_000
MAX_TOKEN_BYTES = 64 << 10
_TOKEN_PIECE_BYTES = 1 << 10

_CHALLENGE = re.compile(r'(\w{1,20})="([^"]{0,1000})"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
_BY_DIGEST = re.compile(r"(?:files/|packs/[0-9a-f]{2}/)([0-9a-f]{64})(?:\.pack)?")


class _Layer(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct, frozen=True):
    layers: tuple[_Layer, ...]


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class Registry(Web):
    """Asks a registry, and gets the token that it wants to see first (distribution's token specification).

    A token ends after some minutes, in the middle of a large update too; the next one is asked for with the same user.
    """

    def __init__(self, base: Address, *, surroundings: Surroundings, least_bytes_per_s: float = 0.0) -> None:
        # A registry may send a device anywhere, as its blobs mostly lie elsewhere.
        super().__init__(base, surroundings=surroundings, least_bytes_per_s=least_bytes_per_s, friends=None)
        self._user = base.secret
        self._least_bytes_per_s = least_bytes_per_s

    def get(self, path: str, headers: Mapping[str, str], *, expect: Collection[int] = (200,)) -> Answer:
        """As a web server does it. Raises as well."""
        answer = super().get(path, headers, expect=(*expect, 401))
        if answer.status != 401:
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        answer.close()
        self.base = dataclasses.replace(self.base, secret=self._token(challenge))
        return super().get(path, headers, expect=expect)

    def _token(self, challenge: str) -> str:
        """The value of an Authorization header. Raises NotAdmitted, Unreachable."""
        scheme, _, rest = challenge.partition(" ")
        wanted = dict(_CHALLENGE.findall(rest[:4000]))
        realm = _realm(wanted.get("realm", "")) if scheme.lower() == "bearer" else None
        if realm is None:
            raise self._refused("asks who we are")
        query = urlencode({name: wanted[name] for name in ("service", "scope") if name in wanted})
        asked = Web(
            dataclasses.replace(realm, query=query, secret=self._user),
            surroundings=self.surroundings,
            least_bytes_per_s=self._least_bytes_per_s,
        )
        with closing(asked), closing(asked.get("", {}, expect=(200, 400, 401, 403))) as answer:
            if answer.status != 200:
                raise self._refused(f"gives no token ({answer.status})")
            pieces = answer.pieces(_TOKEN_PIECE_BYTES)
            raw = b"".join(itertools.islice(pieces, MAX_TOKEN_BYTES // _TOKEN_PIECE_BYTES))
        try:
            found = msgspec.json.decode(raw, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._refused("gives no token that can be read") from error
        token = found.token or found.access_token
        if not _TOKEN.fullmatch(token):
            raise self._refused("gives no token that can be read")
        return f"Bearer {token}"

    def _refused(self, does: str) -> NotAdmitted:
        doubt = "" if self._user is None else ", and does not take this device's user name and password"
        return NotAdmitted(f"{self.base.name} {does}{doubt}")


def _realm(url: str) -> Address | None:
    """Where tokens are given; None for whom a password is not to be said to."""
    try:
        realm = parse(url)
    except UsageError:
        return None
    return realm if realm.scheme == "https" or realm.host in oci.LOOPBACK else None


class OciSource(Source):
    """Reads a tag's release. `registry` asks below `https://host/v2/name`."""

    def __init__(self, reference: Reference, registry: Registry, *, piece_bytes: int = PIECE_BYTES) -> None:
        self._reference = reference
        self._registry = registry
        self._blobs = HttpSource(registry, piece_bytes=piece_bytes)
        self._files: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """The reference."""
        return f"{oci.SCHEME}{self._reference}"

    @property
    def holds(self) -> Literal["packs", "files"]:
        """Whole files: the release's own."""
        return "files"

    @property
    def rest_s(self) -> float:
        """How long the registry asked to be left alone, with its last answer."""
        return self._blobs.rest_s

    def read(self, path: str, *, limit: int) -> bytes:
        """A file of the signed repository. Raises NotInRepository, Unreachable, CorruptRelease."""
        if self._files is None or path == NEWEST:
            self._files = self._tagged()
        if path not in self._files:
            raise NotInRepository(f"{path} ({self.name} has no such layer)")
        return self._blobs.read(f"blobs/{self._files[path]}", limit=limit)

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """A part of a file or a pack, by its digest. Raises NotInRepository, Unreachable, CorruptRelease."""
        match = _BY_DIGEST.fullmatch(path)
        if match is None:
            raise NotInRepository(path)
        yield from self._blobs.stream(f"blobs/sha256:{match[1]}", start=start, length=length, size=size)

    def blame(self) -> None:
        """Nobody else to ask."""
        self._blobs.blame()

    def close(self) -> None:
        """Close connections."""
        self._blobs.close()

    def _tagged(self) -> Mapping[str, str]:
        """Digests of the repository's files, by their paths, as the tag has them now."""
        try:
            answer = self._registry.get(f"manifests/{self._reference.tag}", {"Accept": oci.MANIFEST_TYPE})
        except NotInRepository as error:
            raise NotInRepository(
                f"the tag {self._reference.tag} of {self._reference.host}/{self._reference.name}"
            ) from error
        try:
            raw = self._body(answer)
            layers = msgspec.json.decode(raw, type=_Manifest).layers
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptRelease(f"the manifest of {self.name} cannot be read: {error}"[:500]) from error
        finally:
            answer.close()
        if len(layers) > MAX_LAYERS:
            raise CorruptRelease(f"{self.name} has more than {MAX_LAYERS:,} layers")
        found = {
            layer.annotations.get(oci.FILE_PATH, "").removeprefix(oci.REPOSITORY_FOLDER): layer.digest
            for layer in layers
            if layer.media_type == oci.REPOSITORY_TYPE and re.fullmatch(r"sha256:[0-9a-f]{64}", layer.digest)
        }
        if NEWEST not in found:
            raise NotInRepository(f"signed metadata in {self.name}, where `edgekit repo push` puts it")
        return found

    def _body(self, answer: Answer) -> bytes:
        parts, count = [], 0
        for piece in answer.pieces(PIECE_BYTES):
            parts.append(piece)
            count += len(piece)
            if count > oci.MAX_MANIFEST_BYTES:
                raise CorruptRelease(f"the manifest of {self.name} is larger than {oci.MAX_MANIFEST_BYTES:,} bytes")
        return b"".join(parts)


def address_of(reference: Reference, secret: str | None) -> Address:
    """Where the registry's API is. `secret` is the value of an Authorization header."""
    return dataclasses.replace(parse(reference.url), secret=secret)
