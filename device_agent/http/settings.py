"""HttpSettings: everything about the door that someone may want to turn."""

import ipaddress
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How the agent listens. The defaults are for one person on localhost.

    `allowed_hosts` are names or addresses, without port, that a request's Host header may carry besides loopback;
    `any_address` lets it carry every literal IP address (see guard.py). `heartbeat_s` is how long a stream may be
    silent before a comment is sent, `poll_s` how often a waiting request looks whether its client is still there.
    Each running request holds one of `threads`; keep them above the engine's queue, so that /health always answers.
    `drain_s` is how long running requests may take to finish once the server is asked to stop. A `lenient` agent drops
    parameters that it does not know instead of refusing them, for programs that send extras.
    """

    allowed_hosts: frozenset[str] = frozenset()
    any_address: bool = False
    body_limit_bytes: int = 4 << 20
    heartbeat_s: float = 15.0
    poll_s: float = 0.2
    threads: int = 40
    connection_limit: int = 200
    idle_timeout_s: int = 120
    drain_s: float = 5.0
    lenient: bool = False

    @classmethod
    def listening_on(cls, host: str, *, names: tuple[str, ...] = ()) -> Self:
        """Defaults for an agent bound to `host`; `names` are further names that people reach it by.

        Bound to every interface ("0.0.0.0", "::") it cannot know its addresses, so any literal address will do.
        """
        try:
            wildcard = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            wildcard = not host
        allowed = {name.lower() for name in names}
        if not wildcard:
            allowed.add(host.lower())
        return cls(allowed_hosts=frozenset(allowed), any_address=wildcard)
