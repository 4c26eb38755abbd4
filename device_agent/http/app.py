"""create_app: the agent as one WSGI application."""

from flask import Flask, Response, request

from device_agent.engine.records import ModelService
from device_agent.http import errors, guard, openai, page
from device_agent.http.settings import HttpSettings


def create_app(service: ModelService, settings: HttpSettings) -> Flask:
    """Routes of `service`: OpenAI's API at `/v1` and `/`, the health check, and the chat page."""
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

    @app.get("/health")
    def health() -> Response:
        return openai.as_json({"status": "ok"})

    api = openai.routes(service, settings)
    app.register_blueprint(api, url_prefix="/v1")
    app.register_blueprint(api, name="openai_bare")
    app.register_blueprint(page.routes())
    app.after_request(page.harden)
    errors.install(app, settings)
    return app
