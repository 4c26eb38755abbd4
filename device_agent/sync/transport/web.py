"""One GET: proxies, certificates, redirects, statuses, and how long a server may take.

Nothing is tried again here (mirrors.py does), nothing is decompressed, and nothing is believed but the shape of the
answer. Statuses and fields as in RFC 9110.
"""

import http.client
import io
import socket
import ssl
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from email.utils import parsedate_to_datetime

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from device_agent.sync.transport.address import Address, Origin, origin_of, redirected
from device_agent.sync.transport.pace import Pace, Paced
from device_agent.sync.transport.surroundings import Surroundings
from edgekit import __version__
from edgekit.errors import CorruptRelease, NotAdmitted, NotInRepository, SyncError, Unreachable

CONNECT_S, READ_S = 10.0, 30.0
MOST_REDIRECTS = 5
MOST_REST_S = 300.0
"""Longer than this no server can hold a device off, whatever its Retry-After says."""

DRAINED_BYTES = 1 << 12
USER_AGENT = f"edgekit/{__version__}"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MISSING = frozenset({403, 404, 410})
"""403 too: an object store says so of a file that is not there."""

_BUFFER_BYTES = 1 << 16

_PROBLEMS: tuple[tuple[type[exceptions.HTTPError], str], ...] = (
    (exceptions.NameResolutionError, "its name is not known: is there a network?"),
    (exceptions.ConnectTimeoutError, "nobody answers: is there a network?"),
    (exceptions.ReadTimeoutError, f"nothing came for {READ_S:.0f} s"),
    (exceptions.ProxyError, "the proxy does not let this device through"),
    (exceptions.SSLError, "its certificate is not accepted, or this is no TLS (a wrong clock can be the reason)"),
    (exceptions.ProtocolError, "the connection broke"),
)
"""What people read; the first that fits."""


class Answer:
    """A response of which the head is here."""

    def __init__(self, response: urllib3.BaseHTTPResponse, name: str, pace: Pace) -> None:
        self._response = response
        self._name = name
        self._pace = pace
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def length(self) -> int | None:
        """Bytes of the body as the server says, if it does."""
        said = self.headers.get("Content-Length", "")
        return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else None

    def pieces(self, piece_bytes: int) -> Iterator[bytes]:
        """The body as it comes, at most `piece_bytes` at once. Raises Unreachable."""
        try:
            while piece := self._response.read1(piece_bytes, decode_content=False):
                self._pace.came(len(piece))
                yield piece
        except exceptions.HTTPError as error:
            raise Unreachable(f"{self._name}: {problem_of(error)}") from error
        except Unreachable as error:
            raise Unreachable(f"{self._name}: {error.problem}") from error

    def close(self) -> None:
        """Leave the rest of the body; the connection is used again only if nothing is left of it."""
        self._response.close()
        self._response.release_conn()


class Web:
    """Asks the servers of one repository. `friends` are hosts that its server may send a device to (None: any)."""

    def __init__(
        self,
        base: Address,
        *,
        surroundings: Surroundings,
        least_bytes_per_s: float = 0.0,
        friends: Collection[str] | None = (),
    ) -> None:
        self.base = base
        self.rest_s = 0.0
        """How long the last answer asked to be left alone."""
        self.surroundings = surroundings
        self._friends = None if friends is None else frozenset(friends) | {base.host}
        self._pace = Pace(least_bytes_per_s=least_bytes_per_s, ticks=surroundings.ticks)
        self._proxies = proxies(surroundings.environment)
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._trusted: ssl.SSLContext | None = None

    def get(self, path: str, headers: Mapping[str, str], *, expect: Collection[int] = (200,)) -> Answer:
        """The answer to a GET of a file below the base address, if it has a status of `expect`.

        Raises NotInRepository (403, 404, 410), CorruptRelease (416), NotAdmitted (401, 407), and Unreachable for
        everything else.
        """
        url = self.base.file(path)
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._ask(url, headers)
            if answer.status in expect:
                return answer
            try:
                if answer.status not in REDIRECTS:
                    raise self._refusal(answer, path)
                url = self._next(url, answer.headers.get("Location", ""))
            finally:
                answer.close()
        raise Unreachable(f"{self.base.name} sends this device from one address to another without end")

    def close(self) -> None:
        """Close connections."""
        for manager in self._pools.values():
            manager.clear()
        self._pools.clear()

    def _ask(self, url: str, headers: Mapping[str, str]) -> Answer:
        origin = origin_of(url)
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Cache-Control": "no-transform", **headers}
        if self.base.secret and origin == self.base.origin:
            sent["Authorization"] = self.base.secret
        self._pace.begin()
        self.rest_s = 0.0
        try:
            response = self._pool(origin).request(
                "GET",
                url,
                headers=sent,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            )
        except exceptions.HTTPError as error:
            raise Unreachable(f"{self.base.name}: {problem_of(error)}") from error
        except Unreachable as error:
            raise Unreachable(f"{self.base.name}: {error.problem}") from error
        return Answer(response, self.base.name, self._pace)

    def _pool(self, origin: Origin | None) -> urllib3.PoolManager:
        proxy = None if origin is None else proxy_of(origin, self._proxies)
        if proxy not in self._pools:
            self._pools[proxy] = self._manager(proxy)
        return self._pools[proxy]

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        if self._trusted is None:
            self._trusted = ssl.create_default_context()  # the system's store, or what SSL_CERT_FILE names
        manager = (
            urllib3.PoolManager(num_pools=4, maxsize=1, ssl_context=self._trusted)
            if proxy is None
            else _behind(proxy, self._trusted)
        )
        manager.pool_classes_by_scheme = paced_pools(self._pace)
        return manager

    def _refusal(self, answer: Answer, path: str) -> SyncError:
        name, status = self.base.name, answer.status
        if status in MISSING:
            return NotInRepository(f"{path} ({name} says {status})")
        if status == 416:
            return CorruptRelease(f"{path}: what {name} has is shorter than what was signed (416)")
        self.rest_s = rest_of(answer.headers.get("Retry-After", ""), now=self.surroundings.clock())
        if status in (401, 407):
            return NotAdmitted(f"{name} wants to know who asks ({status})")
        return Unreachable(f"{name} answers with status {status}")

    def _next(self, url: str, location: str) -> str:
        """Where a redirect leads, if this device follows it. Raises Unreachable."""
        target = redirected(url, location)
        there, here = origin_of(target), origin_of(url)
        if there is None or here is None:
            raise Unreachable(f"{self.base.name} sends this device to an address that it cannot read")
        if here[0] == "https" and there[0] != "https":
            raise Unreachable(f"{self.base.name} sends this device from https to http, which it does not follow")
        if self._friends is not None and there[1] not in self._friends:
            raise Unreachable(
                f"{self.base.name} sends this device to {there[1]}, which is none of its repositories "
                "(a network where one has to log in first does that)"
            )
        return target


def problem_of(error: exceptions.HTTPError) -> str:
    """A sentence for people, without URLs."""
    return next((text for kind, text in _PROBLEMS if isinstance(error, kind)), "it cannot be asked")


def rest_of(said: str, *, now: float) -> float:
    """Seconds of a Retry-After (RFC 9110, 10.2.3: seconds or a date), within what is accepted; 0 for anything else."""
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), MOST_REST_S)
    try:
        then = parsedate_to_datetime(said).timestamp()
    except (ValueError, TypeError, LookupError, OverflowError):  # whatever the standard library says of a strange date
        return 0.0
    return min(max(0.0, then - now), MOST_REST_S)


# --- proxies ----------------------------------------------------------------------------------


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Proxies by scheme, and "no" for who needs none, from the variables that every program reads.

    HTTP_PROXY in capitals does not count in a CGI program, where whoever sends a request may set it.
    """
    found = {}
    for name in ("http", "https", "all", "no"):
        cgi = name == "http" and "REQUEST_METHOD" in environment
        capitals = "" if cgi else environment.get(f"{name}_proxy".upper(), "")
        if value := environment.get(f"{name}_proxy", capitals).strip():
            found[name] = value
    return found


def proxy_of(origin: Origin, known: Mapping[str, str]) -> str | None:
    """URL of the proxy for a server, or None."""
    scheme, host, port = origin
    proxy = known.get(scheme) or known.get("all")
    if proxy is None or urllib.request.proxy_bypass_environment(f"{host}:{port}", dict(known)):  # type: ignore[attr-defined]
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _behind(proxy: str, trusted: ssl.SSLContext) -> urllib3.PoolManager:
    """Connections through a proxy. Raises Unreachable for one that cannot be used."""
    try:
        url = urllib3.util.parse_url(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=url.auth) if url.auth else None
        bare = urllib3.util.Url(scheme=url.scheme, host=url.host, port=url.port).url
        return urllib3.ProxyManager(bare, num_pools=4, maxsize=1, proxy_headers=headers, ssl_context=trusted)
    except exceptions.HTTPError as error:
        raise Unreachable("the proxy of the environment is none that can be used (http:// or https://)") from error


# --- connections that tell how fast they are --------------------------------------------------


def paced_pools(pace: Pace) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of connections of which each read of the socket passes `pace`."""

    class Response(http.client.HTTPResponse):
        def __init__(
            self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
        ) -> None:
            super().__init__(sock, debuglevel, method, url)
            self.fp = io.BufferedReader(Paced(self.fp.detach(), pace), _BUFFER_BYTES)

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
