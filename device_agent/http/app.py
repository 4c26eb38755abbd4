"""create_app: the agent as one WSGI application."""

from flask import Flask, Response, request

from device_agent.http import callers, chat, completions, errors, guard, page
from device_agent.http.bodies import as_json
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings

API = (chat, completions)
"""Rooms of the API; each has routes(services, settings), whose blueprint is mounted at `/v1`, and at `/` as llama.cpp
has it."""


def create_app(services: Services, settings: HttpSettings) -> Flask:
    """The API of what `services` has, the health check, and the page."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_limit_bytes

    @app.before_request
    def check_sender() -> None:
        refused = guard.refusal(
            method=request.method,
            host=request.headers.get("Host"),
            origin=request.headers.get("Origin"),
            settings=settings,
        )
        if refused:
            raise refused

    callers.install(app, services.gate)

    @app.get("/health")
    def health() -> Response:
        return as_json({"status": "ok"})

    for room in API:
        blueprint = room.routes(services, settings)
        app.register_blueprint(blueprint, url_prefix="/v1")
        app.register_blueprint(blueprint, name=f"{blueprint.name}_bare")
    app.register_blueprint(page.routes())
    app.after_request(page.harden)
    errors.install(app, settings)
    return app
