"""POST /v1/messages and /v1/messages/count_tokens, Anthropic's."""

import uuid

from flask import Blueprint, Response

from device_agent.http import serving
from device_agent.http.bodies import as_json, json_body
from device_agent.http.callers import require
from device_agent.http.conversing import begin, prompt_tokens
from device_agent.http.openapi import Route
from device_agent.http.replies.dialect_shapes import MessageEvent, MessageObject, TokenCount
from device_agent.http.replies.messages import MessageHead, MessageReply
from device_agent.http.schema.messages import COUNT, MESSAGES, parse_count, parse_message
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings

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
        begun = begin(services, who, "messages", asked.model, asked.request)
        head = MessageHead(
            id="msg_" + uuid.uuid4().hex,
            model=asked.model or begun.visit.lease.card.id,
            prompt_tokens=begun.exchange.spent.input,
        )
        return serving.answer(begun.exchange, MessageReply(head), begun.visit, stream=asked.stream, settings=settings)

    @blueprint.post("/messages/count_tokens")
    def count_tokens() -> Response:
        require("infer")
        asked = parse_count(json_body(), lenient=settings.lenient)
        return as_json({"input_tokens": prompt_tokens(services, asked.model, asked.request)})

    return blueprint
