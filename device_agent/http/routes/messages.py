"""POST /v1/messages and /v1/messages/count_tokens, Anthropic's."""

import uuid

from flask import Blueprint, Response

from device_agent.conversation import converse
from device_agent.conversation.phases import first_phases
from device_agent.http import serving
from device_agent.http.bodies import as_json, json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.replies.dialect_shapes import MessageEvent, MessageObject, TokenCount
from device_agent.http.replies.messages import MessageHead, MessageReply
from device_agent.http.routes.chat import directed, told
from device_agent.http.schema.messages import COUNT, MESSAGES, parse_count, parse_message
from device_agent.http.schema.sampling import check_sampling
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings
from device_agent.http.visit import Visit
from edgekit.strategies import packaged

ROUTES = (
    Route(
        method="post",
        path="/v1/messages",
        summary="Answer a conversation as Anthropic's Messages API does.",
        scope="infer",
        request=MESSAGES,
        reply=MessageObject,
        events=MessageEvent,
    ),
    Route(
        method="post",
        path="/v1/messages/count_tokens",
        summary="Count the tokens of a conversation.",
        scope="infer",
        request=COUNT,
        reply=TokenCount,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("messages", __name__)

    @blueprint.post("/messages")
    def messages() -> Response:
        who = require("infer")
        asked = parse_message(json_body(), lenient=settings.lenient)
        visit = Visit(services, who, "messages", asked.model)
        with serving.beginning(visit):
            model = visit.lease.model
            visit.asked(told(asked.request))
            wanted = directed(asked.request, visit.lease.name)
            check_sampling(wanted.sampling, wanted.max_tokens, serving.facts_of(model))
            exchange = converse.start(model, wanted)  # errors up to here have their own status line
            head = MessageHead(
                id="msg_" + uuid.uuid4().hex,
                model=asked.model or visit.lease.card.id,
                prompt_tokens=exchange.spent.input,
            )
        return serving.answer(exchange, MessageReply(head), visit, stream=asked.stream, settings=settings)

    @blueprint.post("/messages/count_tokens")
    def count_tokens() -> Response:
        require("infer")
        asked = parse_count(json_body(), lenient=settings.lenient)
        lease = services.models.lease(asked.model)
        try:
            first = first_phases(lease.model, directed(asked.request, lease.name), packaged())[0]
        finally:
            lease.release()
        return as_json({"input_tokens": len(first.generation.prompt)})

    return blueprint
