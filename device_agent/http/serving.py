"""From a visit to a response: what the routes that answer with a running exchange have in common."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from flask import Response, g, request

from device_agent.conversation.records import Event, Exchange, Spent
from device_agent.engine.records import ModelService
from device_agent.http import streaming
from device_agent.http.bodies import as_json
from device_agent.http.replies import common
from device_agent.http.replies.common import Envelope
from device_agent.http.schema.sampling import ModelFacts
from device_agent.http.settings import HttpSettings
from device_agent.http.streaming import Gone, Wire
from device_agent.http.visit import Visit

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for an answer that nobody reads any more."""


class Reply(Wire, Protocol):
    """A dialect: a stream's wire, and the reply in one piece."""

    def whole(self, events: Sequence[Event], spent: Spent) -> object:
        """The reply that these events add up to."""


@contextmanager
def beginning(visit: Visit) -> Iterator[None]:
    """Close the visit if something goes wrong before its exchange runs. The log's line tells of it (access.py)."""
    g.visit = visit
    try:
        yield
    except BaseException:
        visit.close()
        raise


def facts_of(model: ModelService) -> ModelFacts:
    """What requests to this model are checked against."""
    return ModelFacts(context_tokens=model.context_tokens, vocab=model.manifest.arch.vocab)


def envelope(visit: Visit, prefix: str, *, named: str, with_usage: bool) -> Envelope:
    """A new answer's; `named` is the request's `model`, "" if it named none."""
    card = visit.lease.card
    return Envelope(
        id=prefix + uuid.uuid4().hex,
        created=int(time.time()),
        model=named or card.id,
        fingerprint=common.fingerprint(card.manifest, visit.lease.name.adapter),
        with_usage=with_usage,
    )


def answer(exchange: Exchange, reply: Reply, visit: Visit, *, stream: bool, settings: HttpSettings) -> Response:
    """The response, whole or streamed. Raises what the exchange raises, if it is whole; closes the visit."""
    if stream:
        return streamed(exchange, reply, visit, settings)
    try:
        events = streaming.gather(exchange, visit, gone=client_gone(), settings=settings)
    except streaming.ClientGone:
        return Response(status=CLIENT_CLOSED_REQUEST)
    return as_json(reply.whole(events, exchange.spent))


def streamed(exchange: Exchange, wire: Wire, visit: Visit, settings: HttpSettings) -> Response:
    """A response of server-sent events."""
    events = streaming.stream(exchange, wire, visit, gone=client_gone(), settings=settings)
    response = Response(events, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the tokens

    def close() -> None:
        """The server closes a response whose client left, even one of which it read nothing."""
        exchange.cancel()
        visit.close(exchange.spent, finish="cancelled")

    response.call_on_close(close)
    return response


def client_gone() -> Gone:
    """Says whether this request's client has left: waitress looks ahead for its end of file (server.py)."""
    found: Gone = request.environ.get("waitress.client_disconnected", _never)
    return found


def _never() -> bool:
    return False
