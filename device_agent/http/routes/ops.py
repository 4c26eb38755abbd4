"""What operators and their programs ask: /health, /metrics and /v1/edgekit/device."""

from flask import Blueprint, Response, request

from device_agent.http.bodies import as_json
from device_agent.http.openapi import Route
from device_agent.http.replies.reports import DeviceReply, HealthReply, UnavailableError
from device_agent.http.services import Health, Operations

ROUTES = (
    Route(method="get", path="/health", summary="Whether requests are answered.", scope=None, reply=HealthReply),
    Route(
        method="get",
        path="/health/live",
        summary="Whether the process answers at all: one that does not is to be restarted.",
        scope=None,
        reply=HealthReply,
    ),
    Route(method="get", path="/health/ready", summary="The same as /health.", scope=None, reply=HealthReply),
    Route(method="get", path="/metrics", summary="Metrics for Prometheus.", scope="infer", reply="text/plain"),
    Route(
        method="get",
        path="/v1/edgekit/device",
        summary="This machine, how it feels, and its load.",
        scope="infer",
        reply=DeviceReply,
    ),
)
_RETRY_AFTER_S = 1


def routes(operations: Operations) -> Blueprint:
    """A blueprint to be mounted at `/`. The health is for everybody; it names models and no paths."""
    blueprint = Blueprint("ops", __name__)

    @blueprint.get("/health/live")
    def live() -> Response:
        return as_json(HealthReply(status="ok"))

    @blueprint.get("/health")
    @blueprint.get("/health/ready")
    def ready() -> Response:
        return health_response(operations.health())

    @blueprint.get("/metrics")
    def metrics() -> Response:
        body, media_type = operations.exposition(request.headers.get("Accept", ""))
        return Response(body, content_type=media_type)

    @blueprint.get("/v1/edgekit/device")
    def device() -> Response:
        return as_json(operations.device())

    return blueprint


def health_response(health: Health) -> Response:
    """200 while requests are answered, and 503 while they are not."""
    if health.ready:
        return as_json(HealthReply(status=health.status, reasons=health.reasons))
    error = UnavailableError() if health.status == "loading" else UnavailableError(message="; ".join(health.reasons))
    response = as_json(HealthReply(status=health.status, reasons=health.reasons, error=error), 503)
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response
