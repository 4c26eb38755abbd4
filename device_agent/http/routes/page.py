"""The chat page at `/`: the files of web/, read once, and headers that let nothing else in."""

import hashlib
import importlib.resources

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # The browser itself refuses innerHTML: text of a model can only ever become text.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
CONTENT_SECURITY_POLICY = "; ".join(_POLICY)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def routes() -> Blueprint:
    """`/` and `/web/<file>`. Files are found in a table, so that no path ever meets the disk."""
    blueprint = Blueprint("page", __name__)
    files = {
        entry.name: entry.read_bytes()
        for entry in (importlib.resources.files("device_agent.http") / "web").iterdir()
        if entry.is_file() and _ending(entry.name) in _TYPES
    }

    @blueprint.get("/")
    def index() -> Response:
        return _file("index.html", files)

    @blueprint.get("/web/<name>")
    def asset(name: str) -> Response:
        return _file(name, files)

    return blueprint


def harden(response: Response) -> Response:
    """Headers for every response: no sniffing, no framing, no referrer, no use by other sites."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _file(name: str, files: dict[str, bytes]) -> Response:
    if name not in files:
        raise NotFound
    response = Response(files[name], content_type=_TYPES[_ending(name)])
    response.headers["Cache-Control"] = "no-cache"  # asks each time, and gets 304 unless the agent was updated
    response.set_etag(hashlib.sha256(files[name]).hexdigest()[:32])
    response.make_conditional(request.environ)
    return response


def _ending(name: str) -> str:
    return name[name.rfind(".") :]
