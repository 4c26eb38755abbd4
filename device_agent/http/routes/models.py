"""GET /v1/models: what there is, read from manifests, so that it is told while a model sleeps or is being loaded."""

from flask import Blueprint, Response

from device_agent.http.bodies import as_json
from device_agent.http.openapi import Route
from device_agent.http.replies.entries import ModelEntry, ModelList, model_entries, model_list
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings

ROUTES = (
    Route(
        method="get",
        path="/v1/models",
        summary="List the models and their adapters, the active model first.",
        scope="infer",
        reply=ModelList,
    ),
    Route(
        method="get",
        path="/v1/models/{name}",
        summary="One of them, by any name that requests may use.",
        scope="infer",
        reply=ModelEntry,
    ),
)


def routes(services: Services, _: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/models")
    def models() -> Response:
        return as_json(model_list(services.models.cards()))

    @blueprint.get("/models/<path:name>")
    def model(name: str) -> Response:
        entries = list(model_entries(services.models.card(name)))  # raises UnknownModel
        return as_json(next((entry for entry in entries if entry.id == name), entries[0]))

    return blueprint
