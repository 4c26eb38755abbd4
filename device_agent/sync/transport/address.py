"""Addresses of repositories on the web: what is asked for, and what people may see of it."""

from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, make_headers, parse_url

from edgekit.errors import UsageError

PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host and port."""


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL, taken apart. `secret` is the value of an Authorization header; a query is secret as well."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None = None
    secret: str | None = None

    @property
    def origin(self) -> Origin:
        """To whom secrets may be said."""
        return (self.scheme, self.host, self.port)

    @property
    def name(self) -> str:
        """For people and logs."""
        port = "" if PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"

    def file(self, path: str) -> str:
        """URL of a file below, without user name and password."""
        query = f"?{self.query}" if self.query else ""
        port = "" if PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}/{quote(path)}{query}"


def parse(text: str) -> Address:
    """An http or https URL. Raises UsageError, without repeating a password."""
    try:
        url = parse_url(text)
    except LocationParseError as error:
        raise UsageError("the address of a repository is not a URL that can be read.") from error
    if url.scheme not in PORTS or not url.host:
        raise UsageError("the address of a repository must be like https://host/path.")
    return Address(
        url.scheme,
        url.host,
        url.port or PORTS[url.scheme],
        (url.path or "").rstrip("/"),
        url.query,
        _secret(url),
    )


def _secret(url: Url) -> str | None:
    if url.auth is None:
        return None
    return make_headers(basic_auth=unquote(url.auth), disable_cache=None)["authorization"]


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
    """Where a `Location` of an answer to `url` leads."""
    return urljoin(url, location)
