"""create_app: the agent as one WSGI application."""

from flask import Flask, Response, request

from device_agent.http import access, callers, cors, errors, guard, openapi
from device_agent.http.bodies import as_json
from device_agent.http.routes import (
    catalogue,
    chat,
    completions,
    embeddings,
    keys,
    messages,
    models,
    ops,
    page,
    responses,
    sync,
    text,
    usage,
)
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings
from edgekit import __version__

API = (models, chat, completions, responses, messages, embeddings, text, catalogue, usage, keys, sync)
"""Rooms of the API; each has routes(services, settings), whose blueprint is mounted at `/v1`, and at `/` as llama.cpp
has it."""


def create_app(services: Services, settings: HttpSettings) -> Flask:
    """The API of what `services` has, the health check, and the page."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_limit_bytes
    access.install(app, services.operations)  # first: what is refused below is seen too

    @app.before_request
    def check_sender() -> None:
        headers = request.headers
        sender = guard.Sender(
            method=request.method,
            path=request.path,
            host=headers.get("Host"),
            origin=headers.get("Origin"),
            fetch_site=headers.get("Sec-Fetch-Site"),
            fetch_mode=headers.get("Sec-Fetch-Mode"),
        )
        if refused := guard.refusal(sender, settings):
            raise refused

    cors.install(app, settings)  # before callers are asked for keys: a browser's preflight has none
    callers.install(app, services.gate)

    tables = [room.ROUTES for room in API]
    if services.operations is not None:
        app.register_blueprint(ops.routes(services.operations))
        tables.append(ops.ROUTES)

    @app.get("/openapi.json")
    def description() -> Response:
        return as_json(openapi.document([route for table in tables for route in table], version=__version__))

    for room in API:
        blueprint = room.routes(services, settings)
        app.register_blueprint(blueprint, url_prefix="/v1")
        app.register_blueprint(blueprint, name=f"{blueprint.name}_bare")
    app.register_blueprint(page.routes())
    app.after_request(page.harden)
    errors.install(app, settings)
    return app
