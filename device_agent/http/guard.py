"""Which requests may come in at all: protection of a localhost server against web pages. Pure.

A web page that someone visits can point its own name at 127.0.0.1 (DNS rebinding) and then talk to this agent as if
it were its own server; the Host header still carries that name, so only known ones are served. A literal address
cannot be rebound. A page may also send requests to this address from its own: browsers say so in Origin and in
Sec-Fetch-Site (W3C Fetch Metadata), and such a request is refused whatever its method, so that nothing is read, nothing
is started and nothing can be told from the time it takes. Programs that are no browsers send neither header.

Pages of `HttpSettings.allowed_origins` are let in, with the headers that let them read (cors.py). And a link may lead
here: a person who follows one sees the page at `/`, which nothing else can frame or read.
"""

import ipaddress
import re
from dataclasses import dataclass

from device_agent.http.settings import HttpSettings
from edgekit.errors import RouteError

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?", re.IGNORECASE)
_OWN_SITES = (None, "same-origin", "none")
"""Values of Sec-Fetch-Site: no browser or an old one, this agent's own page, and an address that a person typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """What a request's head says of where it comes from; None for headers that are missing."""

    method: str
    path: str
    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    fetch_mode: str | None = None


def refusal(sender: Sender, settings: HttpSettings) -> RouteError | None:
    """Why a request with this head is not served, or None.

    A missing Host is served: only HTTP/1.0 clients leave it out, and no browser does.
    """
    if sender.host is not None and not is_allowed(sender.host, settings):
        return RouteError(
            f"This agent does not answer to the host {sender.host[:100]!r}. "
            "Use localhost, or allow that name where the agent is started.",
            http_status=403,
        )
    if is_guest(sender.origin, settings):
        return None
    foreign = sender.origin is not None and not _same_origin(sender.origin, sender.host)
    if foreign or not (sender.fetch_site in _OWN_SITES or _is_visit(sender)):
        return RouteError(
            "Another web site's page may not use this agent. Its origin can be allowed in the agent's settings.",
            http_status=403,
        )
    return None


def is_guest(origin: str | None, settings: HttpSettings) -> bool:
    """True for the origin of a page that was allowed to use the API."""
    return origin is not None and origin.lower() in settings.allowed_origins


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


def _same_origin(origin: str, host: str | None) -> bool:
    """True if a page's origin is the very host and port that it asks; "null" (a sandboxed page) is not."""
    return host is not None and origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}


def _is_visit(sender: Sender) -> bool:
    """A person who follows a link to the page."""
    return sender.method == "GET" and sender.path == "/" and sender.fetch_mode == "navigate"
