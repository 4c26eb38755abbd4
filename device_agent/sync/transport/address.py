"""Addresses of repositories on the web: what is asked for, and what people may see of it."""

from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers, parse_url

from edgekit.errors import UsageError

PORTS = {"http": 80, "https": 443}
UNREADABLE = "an address that cannot be read"

Origin = tuple[str, str, int]
"""Scheme, host and port."""


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL, taken apart. `secret` is the value of an Authorization header, from its user name and password."""

    scheme: str
    host: str
    port: int
    path: str
    secret: str | None = None
    query: str = ""
    """Of what is asked for a token; repositories have none."""

    @property
    def origin(self) -> Origin:
        """To whom the secret may be said."""
        return (self.scheme, self.host, self.port)

    @property
    def name(self) -> str:
        """The URL without user name and password: for people and logs."""
        port = "" if PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"

    def file(self, path: str) -> str:
        """URL of a file below; "" is the address itself."""
        below = f"/{quote(path, safe='/:')}" if path else ""
        return f"{self.name}{below}{'?' if self.query else ''}{self.query}"


def parse(text: str) -> Address:
    """An http or https URL. Raises UsageError, without repeating a password."""
    try:
        url = parse_url(text)
    except LocationParseError as error:
        raise UsageError("the address of a repository is not a URL that can be read.") from error
    if url.scheme not in PORTS or not url.host:
        raise UsageError("the address of a repository must be like https://host/path.")
    if url.query is not None or url.fragment is not None:
        raise UsageError(f"the address of a repository on {url.host} has a ? or # in it, and files are below a path.")
    secret = None
    if url.auth is not None:
        secret = make_headers(basic_auth=unquote(url.auth))["authorization"]
    return Address(url.scheme, url.host, url.port or PORTS[url.scheme], (url.path or "").rstrip("/"), secret)


def shown(place: str) -> str:
    """A repository, or a place for reports, as people and logs may see it: no user name, password, query, fragment."""
    scheme, mark, _ = place.partition("://")
    if not mark or scheme.lower() == "file":
        return place
    try:
        parts = urlsplit(place)
    except ValueError:
        return UNREADABLE
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # / ? or # in a password, which ends it: half is too much
        return UNREADABLE
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def origin_of(url: str) -> Origin | None:
    """Who would be asked; None for what is no web address."""
    try:
        found = parse_url(url)
    except LocationParseError:
        return None
    if found.scheme not in PORTS or not found.host:
        return None
    return (found.scheme, found.host, found.port or PORTS[found.scheme])


def redirected(url: str, location: str) -> str:
    """Where a `Location` of an answer to `url` leads; "" if that cannot be read."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""
