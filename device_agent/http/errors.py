"""Every failure as OpenAI's error object with the right status line.

The SDK retries 408, 409, 429 and 5xx twice: a user's mistake must never be one of those, or one too-long prompt
costs three attempts.
"""

import logging

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from device_agent.http.bodies import as_json
from device_agent.http.replies import common
from device_agent.http.replies import messages as message_replies
from device_agent.http.settings import HttpSettings
from edgekit.errors import EdgekitError, Overloaded, QuotaExceeded, RequestTooLarge, RouteError, ServerError

MOST_SDK_WAIT_S = 60
"""Of openai-python and anthropic-python (`_calculate_retry_timeout` and `_should_retry` in their _base_client.py)."""

_log = logging.getLogger(__name__)


def install(app: Flask, settings: HttpSettings) -> None:
    """Give `app` its error handlers."""

    def known(problem: EdgekitError) -> Response:
        if problem.http_status >= 500:
            # A full queue is no surprise, and thousands may meet it.
            level = logging.INFO if isinstance(problem, Overloaded) else logging.WARNING
            _log.log(level, "a request could not be served: %s", problem)
        response = as_json(_shape(problem), problem.http_status)
        response.headers.extend(_retry_headers(problem))
        return response

    def routing(problem: HTTPException) -> Response:
        """What Flask itself refuses: 404, 405, 413 and malformed requests."""
        status = problem.code or 500
        if status == 413:
            return known(RequestTooLarge(settings.body_limit_bytes))
        response = known(RouteError(problem.description or problem.name, http_status=status))
        response.headers.extend((name, value) for name, value in problem.get_headers() if name == "Allow")
        return response

    def unexpected(problem: Exception) -> Response:
        _log.error("bug: a request failed", exc_info=problem)
        return as_json(_shape(ServerError("an internal error, described in its log.")), 500)

    app.register_error_handler(EdgekitError, known)
    app.register_error_handler(HTTPException, routing)
    app.register_error_handler(Exception, unexpected)


def _shape(problem: EdgekitError) -> common.Json:
    """OpenAI's error object, or Anthropic's where its SDK asks."""
    here = request.path.removeprefix("/v1")
    return message_replies.error(problem) if here.startswith("/messages") else common.error(problem)


def _retry_headers(problem: EdgekitError) -> dict[str, str]:
    """When to come again. The SDKs obey up to a minute, and try again at once after more unless told not to."""
    if problem.http_status not in (429, 503):
        return {}
    wait_s = problem.retry_after_s if isinstance(problem, Overloaded | QuotaExceeded) else 1
    found = {"Retry-After": str(wait_s)}
    return found if wait_s <= MOST_SDK_WAIT_S else found | {"X-Should-Retry": "false"}
