"""HttpSettings: everything about the door that someone may want to turn."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgekit.errors import UsageError

_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How the agent listens. The defaults are for one person on localhost.

    `allowed_hosts` are names or addresses, without port, that a request's Host header may carry besides loopback;
    `any_address` lets it carry every literal IP address (see guard.py). Pages of `allowed_origins` may use the API from
    a browser: none by default. With `tls_cert` and `tls_key` (PEM files) it speaks HTTPS only.

    `heartbeat_s` is how long a stream may be silent before a comment is sent, `poll_s` how often a waiting request
    looks whether its client is still there. Each running request holds one of `threads`; keep them above the engine's
    queue, so that /health always answers. `drain_s` is how long running requests may take to finish once the server is
    asked to stop.

    Of `connection_limit` open connections those that have been idle longest make room for new ones; `header_s` and
    `body_s` are how long a client may take to send a request's headers, and all of it. `idle_s` is how long a
    connection may stay open between requests, or not take what is sent to it.

    A `lenient` agent drops parameters that it does not know instead of refusing them, for programs that send extras.
    """

    allowed_hosts: frozenset[str] = frozenset()
    any_address: bool = False
    allowed_origins: frozenset[str] = frozenset()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    body_limit_bytes: int = 4 << 20
    heartbeat_s: float = 15.0
    poll_s: float = 0.2
    threads: int = 40
    connection_limit: int = 256
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 120.0
    drain_s: float = 5.0
    lenient: bool = False

    @classmethod
    def listening_on(
        cls,
        host: str,
        *,
        names: tuple[str, ...] = (),
        origins: Iterable[str] = (),
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
    ) -> Self:
        """Defaults for an agent bound to `host`; `names` are further names that people reach it by.

        Bound to every interface ("0.0.0.0", "::") it cannot know its addresses, so any literal address will do.
        Raises UsageError for an origin that is none, or half of a certificate.
        """
        try:
            wildcard = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            wildcard = not host
        allowed = {name.lower() for name in names}
        if not wildcard:
            allowed.add(host.lower())
        if (tls_cert is None) != (tls_key is None):
            raise UsageError("TLS needs both a certificate (tls_cert) and its key (tls_key).")
        return cls(
            allowed_hosts=frozenset(allowed),
            any_address=wildcard,
            allowed_origins=frozenset(_origin(origin) for origin in origins),
            tls_cert=tls_cert,
            tls_key=tls_key,
        )


def _origin(given: str) -> str:
    """An origin as browsers write it. Raises UsageError, for "*" and "null" too: they would let every page in."""
    origin = given.strip().lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise UsageError(
            f'{given!r} is no origin of a web page, such as "https://chat.example.org" or "http://pi:3000".'
        )
    return origin
