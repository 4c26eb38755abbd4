"""One repository of an OCI registry, for writing: HEAD and POST/PUT of blobs, PUT of a manifest under a tag.

The API is the OCI distribution specification's (v1.1). Who asks for a user gets the name and password at hand, or the
token that its token server gives for them (distribution's token specification; RFC 6750).
"""

import base64
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec
import urllib3
from urllib3 import exceptions

from edgekit.errors import PublishError
from edgekit.release import oci
from edgekit.release.oci import Reference

_TIMEOUT = urllib3.Timeout(connect=20, read=120)
_CHALLENGE = re.compile(r'(\w{1,20})="([^"]{0,1000})"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
_MOST_ANSWER_BYTES = 1 << 20
_MOST_SAID_CHARS = 300

_PROBLEMS: tuple[tuple[type[exceptions.HTTPError], str], ...] = (
    (exceptions.NameResolutionError, "its name is not known"),
    (exceptions.NewConnectionError, "nobody answers there"),
    (exceptions.ConnectTimeoutError, "nobody answers there"),
    (exceptions.ReadTimeoutError, f"nothing came for {_TIMEOUT.read_timeout:.0f} s"),
    (exceptions.SSLError, "its certificate is not accepted, or it speaks no https"),
    (exceptions.ProtocolError, "the connection broke"),
)
"""What people read; the first that fits."""

Open = Callable[[], Iterator[bytes]]
"""Begins to read a blob's bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Of a registry's user; empty for nobody."""

    user: str = ""
    password: str = ""

    @property
    def basic(self) -> str | None:
        """The value of an Authorization header (RFC 7617)."""
        if not self.user:
            return None
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


NOBODY = Credentials()


class _Said(msgspec.Struct, frozen=True):
    message: str = ""


class _Problems(msgspec.Struct, frozen=True):
    errors: tuple[_Said, ...] = ()


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class Registry:
    """Writes to `reference`'s repository. Everything raises PublishError."""

    def __init__(self, reference: Reference, credentials: Credentials) -> None:
        self._reference = reference
        self._credentials = credentials
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT)
        self._authorization: str | None = None

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        answer = self._ask("HEAD", f"{self._reference.url}blobs/sha256:{sha256}", allowed=(200, 404))
        return answer.status == 200

    def upload(self, sha256: str, size: int, read: Open) -> None:
        """Send a blob in one piece, and have the registry hold it against its digest."""
        begun = self._ask(
            "POST", f"{self._reference.url}blobs/uploads/", allowed=(202,), headers={"Content-Length": "0"}
        )
        place = urljoin(self._reference.url, begun.headers.get("Location", ""))
        if urlsplit(place)[:2] != urlsplit(self._reference.url)[:2]:
            raise PublishError(f"{self._reference.host} wants bytes to be sent to another host, or by http")
        address = f"{place}{'&' if urlsplit(place).query else '?'}{urlencode({'digest': f'sha256:{sha256}'})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._ask("PUT", address, allowed=(201,), headers=headers, body=read)

    def tag(self, manifest: bytes, tag: str) -> None:
        """Point a tag at a manifest."""
        address = f"{self._reference.url}manifests/{tag}"
        headers = {"Content-Type": oci.MANIFEST_TYPE, "Content-Length": str(len(manifest))}
        self._ask("PUT", address, allowed=(201,), headers=headers, body=lambda: iter((manifest,)))

    def close(self) -> None:
        """Close connections."""
        self._pool.clear()

    def _ask(
        self,
        method: str,
        url: str,
        *,
        allowed: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: Open | None = None,
    ) -> urllib3.BaseHTTPResponse:
        answer = self._once(method, url, headers or {}, body)
        if answer.status == 401:
            self._authorization = self._authorize(answer.headers.get("WWW-Authenticate", ""))
            answer = self._once(method, url, headers or {}, body)
        if answer.status not in allowed:
            raise PublishError(self._refusal(method, answer))
        return answer

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Open | None) -> urllib3.BaseHTTPResponse:
        sent = dict(headers) | ({"Authorization": self._authorization} if self._authorization else {})
        try:
            return self._pool.request(
                method, url, headers=sent, body=body() if body else None, redirect=False, retries=False
            )
        except exceptions.HTTPError as error:
            raise PublishError(f"{self._reference.host}: {_problem_of(error)}") from error

    def _refusal(self, method: str, answer: urllib3.BaseHTTPResponse) -> str:
        """A sentence for an answer that should have been another one."""
        who = self._reference.host
        if answer.status in (401, 403):
            name = f" as {self._credentials.user}" if self._credentials.user else ""
            return f"{who} does not let us push to {self._reference.name}{name} ({answer.status})"
        try:
            said = "; ".join(one.message for one in msgspec.json.decode(answer.data, type=_Problems).errors)
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = "is this an OCI registry?"
        return f"{who} answers {answer.status} to {method}: {said[:_MOST_SAID_CHARS]}"

    # --- who asks ---------------------------------------------------------------------------------

    def _authorize(self, challenge: str) -> str:
        """What to send along, after the registry asked who we are."""
        scheme, _, rest = challenge.partition(" ")
        basic = self._credentials.basic
        if scheme.lower() == "basic" and basic is not None:
            return basic
        wanted = dict(_CHALLENGE.findall(rest))
        realm = urlsplit(wanted.get("realm", ""))
        safe = realm.scheme == "https" or (realm.scheme == "http" and realm.hostname in oci.LOOPBACK)
        if scheme.lower() != "bearer" or not safe:
            raise PublishError(
                f"{self._reference.host} asks who we are: set EDGEKIT_REGISTRY_USER and EDGEKIT_REGISTRY_PASSWORD, or"
                " `docker login` (a name and password in its config.json; programs that keep them are not asked)"
            )
        scope = f"repository:{self._reference.name}:pull,push"
        query = urlencode({"service": wanted.get("service", ""), "scope": scope})
        return f"Bearer {self._token(realm.geturl() + ('&' if realm.query else '?') + query)}"

    def _token(self, url: str) -> str:
        headers = {"Authorization": basic} if (basic := self._credentials.basic) else {}
        try:
            answer = self._pool.request(
                "GET", url, headers=headers, preload_content=False, redirect=False, retries=False
            )
            raw = answer.read(_MOST_ANSWER_BYTES)
            answer.close()
        except exceptions.HTTPError as error:
            raise PublishError(f"{urlsplit(url).netloc}, which gives tokens: {_problem_of(error)}") from error
        try:
            found = msgspec.json.decode(raw, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = _Token()
        token = found.token or found.access_token
        if answer.status != 200 or not _TOKEN.fullmatch(token):
            name = self._credentials.user or "somebody without a name"
            raise PublishError(f"{self._reference.host} gives {name} no token ({answer.status})")
        return token


def _problem_of(error: exceptions.HTTPError) -> str:
    return next((text for kind, text in _PROBLEMS if isinstance(error, kind)), "it cannot be asked")
