"""create_app: the agent as one WSGI application."""

from flask import Flask, Response, request

from device_agent.engine.records import ModelService
from device_agent.http import cors, errors, guard, openai, page
from device_agent.http.settings import HttpSettings


def create_app(service: ModelService, settings: HttpSettings) -> Flask:
    """Routes of `service`: OpenAI's API at `/v1` and `/`, the health check, and the chat page."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_limit_bytes

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

    cors.install(app, settings)

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
