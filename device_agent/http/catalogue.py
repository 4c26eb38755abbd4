"""/v1/edgekit/models: the store's catalogue, and which model is active and in memory."""

from flask import Blueprint, Response

from device_agent.http.bodies import as_json
from device_agent.http.callers import require
from device_agent.http.entries import Catalogue, CatalogueEntry, catalogue_entry
from device_agent.http.services import Card, Rates, Services
from device_agent.http.settings import HttpSettings

_NOTHING_MEASURED = Rates(prompt_tokens_per_s=None, decode_tokens_per_s=None)


def routes(services: Services, _: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/v1/edgekit`."""
    blueprint = Blueprint("catalogue", __name__)

    def entry(card: Card) -> CatalogueEntry:
        operations = services.operations
        return catalogue_entry(card, operations.measured(card.id) if operations else _NOTHING_MEASURED)

    @blueprint.get("/models")
    def catalogue() -> Response:
        require("infer")
        return as_json(Catalogue(data=[entry(card) for card in services.models.cards()]))

    @blueprint.post("/models/<path:name>/activate")
    def activate(name: str) -> Response:
        require("admin")
        return as_json(entry(services.models.activate(name)))

    @blueprint.post("/models/<path:name>/unload")
    def unload(name: str) -> Response:
        require("admin")
        return as_json(entry(services.models.unload(name)))

    return blueprint
