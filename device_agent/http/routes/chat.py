"""POST /v1/chat/completions."""

from flask import Blueprint, Response

from device_agent.http import serving
from device_agent.http.bodies import json_body
from device_agent.http.callers import require
from device_agent.http.conversing import begin
from device_agent.http.openapi import Route
from device_agent.http.replies.chat import ChatReply
from device_agent.http.replies.shapes import ChatChunk, ChatCompletion
from device_agent.http.replies.spelling import Speller
from device_agent.http.schema.chat import CHAT, parse_chat
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings

ROUTES = (
    Route(
        method="post",
        path="/v1/chat/completions",
        summary="Answer a conversation.",
        scope="infer",
        request=CHAT,
        reply=ChatCompletion,
        events=ChatChunk,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("chat", __name__)

    @blueprint.post("/chat/completions")
    def chat_completions() -> Response:
        who = require("infer")
        asked = parse_chat(json_body(), lenient=settings.lenient)
        begun = begin(services, who, "chat", asked.model, asked.request)
        model = begun.visit.lease.model
        reply = ChatReply(
            envelope=serving.envelope(begun.visit, "chatcmpl-", named=asked.model, with_usage=asked.include_usage),
            choices=begun.wanted.choices,
            speller=Speller(model),
            with_logprobs=begun.wanted.top_logprobs is not None,
            endings=frozenset(model.manifest.tokens.eos),
        )
        return serving.answer(begun.exchange, reply, begun.visit, stream=asked.stream, settings=settings)

    return blueprint
