"""Which requests may come in at all: protection of a localhost server against web pages. Pure.

A web page that someone visits can point its own name at 127.0.0.1 (DNS rebinding) and then talk to this agent as if
it were its own server; the Host header still carries that name, so only known ones are served. A literal address
cannot be rebound. And a page may send a POST elsewhere without reading the answer; browsers say so in Origin.
No CORS header is ever sent, so that no other site can read anything.
"""

import ipaddress
import re

from device_agent.http.settings import HttpSettings
from edgekit.errors import RouteError

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?", re.IGNORECASE)
_READS = ("GET", "HEAD", "OPTIONS")


def refusal(*, method: str, host: str | None, origin: str | None, settings: HttpSettings) -> RouteError | None:
    """Why a request with these headers is not served, or None.

    A missing Host is served: only HTTP/1.0 clients leave it out, and no browser does.
    """
    if host is not None and not is_allowed(host, settings):
        return RouteError(
            f"This agent does not answer to the host {host[:100]!r}. "
            "Use localhost, or allow that name where the agent is started.",
            http_status=403,
        )
    if origin is not None and method not in _READS and not _same_site(origin, host):
        return RouteError("Another web site's page may not use this agent.", http_status=403)
    return None


def is_allowed(host: str, settings: HttpSettings) -> bool:
    """True if a Host header names loopback or something in the settings."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match["v6"] or match["name"]).lower().removesuffix(".")
    if name == "localhost" or name in settings.allowed_hosts:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or settings.any_address


def _same_site(origin: str, host: str | None) -> bool:
    """True if a page's origin is the very host and port that it asks; "null" (a sandboxed page) is not."""
    return host is not None and origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}
