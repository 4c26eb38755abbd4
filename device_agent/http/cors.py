"""What lets a page of an allowed origin use the API (Fetch standard, section 3.3). Closed unless the settings open it.

A browser asks first (OPTIONS, a preflight) and sends no key with that; it is answered before anybody is identified.
Cookies are never used, so credentials need no permission: keys travel in a header.
"""

import re

from flask import Flask, Response, request
from werkzeug.datastructures import Headers

from device_agent.http import guard
from device_agent.http.settings import HttpSettings

_METHODS = "GET, POST, DELETE"
_EXPOSED = (
    "Retry-After, X-Request-Id, "
    "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)
_MAX_AGE_S = "600"
_NAMES = re.compile(r"[A-Za-z0-9-]+(?:\s*,\s*[A-Za-z0-9-]+)*")
_MOST_CHARS = 2_000


def install(app: Flask, settings: HttpSettings) -> None:
    """Answer preflights of allowed origins, and say in every answer whether a page may read it."""

    @app.before_request
    def preflight() -> Response | None:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not asks or not guard.is_guest(request.headers.get("Origin"), settings):
            return None
        return Response(status=204, headers=permission(request.headers))

    @app.after_request
    def readable(response: Response) -> Response:
        if settings.allowed_origins:
            response.vary.add("Origin")
            origin = request.headers.get("Origin")
            if origin is not None and guard.is_guest(origin, settings):
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response


def permission(asked: Headers) -> dict[str, str]:
    """Headers that answer a preflight. Whatever headers it names are fine: "*" would leave out Authorization."""
    found = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Max-Age": _MAX_AGE_S,
        "Vary": "Access-Control-Request-Headers",
    }
    names = asked.get("Access-Control-Request-Headers", "").strip()
    if len(names) <= _MOST_CHARS and _NAMES.fullmatch(names):
        found["Access-Control-Allow-Headers"] = names
    if asked.get("Access-Control-Request-Private-Network") == "true":  # a public page that asks a private address
        found["Access-Control-Allow-Private-Network"] = "true"
    return found
