"""What operators and their programs ask: /health, /metrics and /v1/edgekit/device."""

from flask import Blueprint, Response, request

from device_agent.http.bodies import as_json
from device_agent.http.callers import require
from device_agent.http.replies import Json
from device_agent.http.services import Health, Operations

_LOADING: Json = {"message": "Loading model", "type": "unavailable_error", "code": 503}
"""What llama.cpp's server says meanwhile; its clients look for it."""

_RETRY_AFTER_S = 1


def routes(operations: Operations) -> Blueprint:
    """A blueprint to be mounted at `/`. The health is for everybody; it names models and no paths."""
    blueprint = Blueprint("ops", __name__)

    @blueprint.get("/health/live")
    def live() -> Response:
        """Whether the process answers at all: if it does not, it is to be restarted."""
        return as_json({"status": "ok"})

    @blueprint.get("/health")
    @blueprint.get("/health/ready")
    def ready() -> Response:
        """Whether requests are answered."""
        return health_response(operations.health())

    @blueprint.get("/metrics")
    def metrics() -> Response:
        require("infer")
        body, media_type = operations.exposition(request.headers.get("Accept", ""))
        return Response(body, content_type=media_type)

    @blueprint.get("/v1/edgekit/device")
    def device() -> Response:
        require("infer")
        return as_json(operations.device())

    return blueprint


def health_response(health: Health) -> Response:
    """200 while requests are answered, and 503 while they are not."""
    body: Json = {"status": health.status, "reasons": health.reasons}
    if health.ready:
        return as_json(body)
    if health.status == "loading":
        body["error"] = _LOADING
    response = as_json(body, 503)
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response
