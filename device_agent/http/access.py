"""Every request has an id and, once its response has gone out, a line in the log and a place in the metrics."""

import logging
import re
import time
import uuid
from dataclasses import dataclass, field

from flask import Flask, Response, g, request

from device_agent.http.services import Operations
from device_agent.http.visit import Visit
from device_agent.logs import request_id

_log = logging.getLogger(__name__)

HEADER = "x-request-id"
UNMATCHED = "unmatched"
"""The route of requests for which there is none: what they asked for is theirs to choose, and must not fill tables."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(slots=True)
class _Line:
    """A request on its way."""

    id: str
    began: float = field(default_factory=time.perf_counter)


def install(app: Flask, operations: Operations | None) -> None:
    """Watch all requests of `app`. To be called first, so that refused requests are seen too."""

    @app.before_request
    def begin() -> None:
        sent = request.headers.get(HEADER, "")
        g.line = _Line(sent if _SANE_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}")
        request_id.set(g.line.id)

    @app.after_request
    def watch(response: Response) -> Response:
        line: _Line = g.line
        response.headers[HEADER] = line.id
        route = UNMATCHED if request.url_rule is None else request.url_rule.rule
        method, visit = request.method, g.get("visit")

        def end() -> None:
            seconds = time.perf_counter() - line.began
            if operations is not None:
                operations.answered(route=route, method=method, status=response.status_code, seconds=seconds)
            _say(route, method, response.status_code, seconds, visit)

        response.call_on_close(end)  # after the last byte of a stream; what was spent is known by then
        return response


def _say(route: str, method: str, status: int, seconds: float, visit: Visit | None) -> None:
    fields: dict[str, object] = {
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    served = visit.served if visit is not None else None
    if served is not None:
        fields |= {
            "model": served.model,
            "adapter": served.adapter,
            "key": served.caller.key or None,
            "input_tokens": served.input_tokens,
            "cached_tokens": served.cached_tokens,
            "output_tokens": served.output_tokens,
            "finish": served.finish,
        }
    _log.info("%s %s %d", method, route, status, extra={"fields": fields})
