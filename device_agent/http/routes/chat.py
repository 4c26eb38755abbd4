"""POST /v1/chat/completions."""

from dataclasses import replace

from flask import Blueprint, Response

from device_agent.conversation import converse
from device_agent.conversation.records import ChatRequest
from device_agent.http import serving
from device_agent.http.bodies import json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.replies.chat import ChatReply
from device_agent.http.replies.shapes import ChatChunk, ChatCompletion
from device_agent.http.replies.spelling import Speller
from device_agent.http.schema.chat import CHAT, parse_chat
from device_agent.http.schema.sampling import check_sampling
from device_agent.http.services import ModelName, Services
from device_agent.http.settings import HttpSettings
from device_agent.http.visit import Visit
from edgekit.errors import InvalidRequest

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
        visit = Visit(services, who, "chat", asked.model)
        with serving.beginning(visit):
            model = visit.lease.model
            visit.asked(told(asked.request))
            wanted = directed(asked.request, visit.lease.name)
            check_sampling(wanted.sampling, wanted.max_tokens, serving.facts_of(model))
            reply = ChatReply(
                envelope=serving.envelope(visit, "chatcmpl-", named=asked.model, with_usage=asked.include_usage),
                choices=wanted.choices,
                speller=Speller(model),
                with_logprobs=wanted.top_logprobs is not None,
                endings=frozenset(model.manifest.tokens.eos),
            )
            # Errors up to here have their own status line.
            exchange = converse.start(model, wanted, strategies=services.strategies)
        return serving.answer(exchange, reply, visit, stream=asked.stream, settings=settings)

    return blueprint


def told(request: ChatRequest) -> str:
    """A conversation in words, for agents that keep texts."""
    return "\n".join(f"{turn.role}: {turn.content}" for turn in request.messages)


def directed(request: ChatRequest, name: ModelName) -> ChatRequest:
    """The request with what its model's name says. Raises InvalidRequest if the two name different strategies."""
    if request.strategy is not None and name.strategy is not None and request.strategy != name.strategy:
        raise InvalidRequest(
            f"edgekit.strategy is {request.strategy[:100]!r}, but the model's name says {name.strategy!r}.",
            param="edgekit.strategy",
        )
    return replace(request, adapter=name.adapter, strategy=request.strategy or name.strategy)
