"""/v1/edgekit/models: the store's catalogue, and which model is active and in memory."""

from flask import Blueprint, Response

from device_agent.http.bodies import as_json
from device_agent.http.openapi import Route
from device_agent.http.replies.entries import Catalogue, CatalogueEntry, catalogue_entry
from device_agent.http.services import Card, Rates, Services
from device_agent.http.settings import HttpSettings

_PATH = "/v1/edgekit/models"
ROUTES = (
    Route(method="get", path=_PATH, summary="The store's catalogue, for people.", scope="infer", reply=Catalogue),
    Route(
        method="post",
        path=f"{_PATH}/{{name}}/activate",
        summary="Make a model the one that answers if nobody is named, also after a restart.",
        scope="admin",
        reply=CatalogueEntry,
        refusals=(404, 503),
    ),
    Route(
        method="post",
        path=f"{_PATH}/{{name}}/unload",
        summary="Take a model out of memory once nobody uses it.",
        scope="admin",
        reply=CatalogueEntry,
        refusals=(404,),
    ),
)
_NOTHING_MEASURED = Rates(prompt_tokens_per_s=None, decode_tokens_per_s=None)


def routes(services: Services, _: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("catalogue", __name__)

    def entry(card: Card) -> CatalogueEntry:
        operations = services.operations
        return catalogue_entry(card, operations.measured(card.id) if operations else _NOTHING_MEASURED)

    @blueprint.get("/edgekit/models")
    def catalogue() -> Response:
        return as_json(Catalogue(data=[entry(card) for card in services.models.cards()]))

    @blueprint.post("/edgekit/models/<path:name>/activate")
    def activate(name: str) -> Response:
        return as_json(entry(services.models.activate(name)))

    @blueprint.post("/edgekit/models/<path:name>/unload")
    def unload(name: str) -> Response:
        return as_json(entry(services.models.unload(name)))

    return blueprint
