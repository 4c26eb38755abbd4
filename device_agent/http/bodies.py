"""JSON in and out of a route."""

import msgspec
from flask import Response, request

from edgekit.errors import RouteError


def as_json(value: object, status: int = 200) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def json_body() -> bytes:
    """The request's bytes. Raises RouteError 415 unless they are said to be JSON, once, in UTF-8."""
    said = request.headers.get("Content-Type", "")
    if request.mimetype != "application/json" or request.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise RouteError(f"Send the body as application/json, not {said[:100]!r}.", http_status=415)
    return request.get_data(cache=False)
