"""POST /v1/responses, without state."""

import time
import uuid

from flask import Blueprint, Response

from device_agent.http import serving
from device_agent.http.bodies import json_body
from device_agent.http.callers import require
from device_agent.http.conversing import begin
from device_agent.http.openapi import Route
from device_agent.http.replies.dialect_shapes import ResponseEvent, ResponseObject
from device_agent.http.replies.responses import ResponseHead, ResponseReply
from device_agent.http.replies.spelling import Speller
from device_agent.http.schema.responses import RESPONSES, own_names, parse_response
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings

ROUTES = (
    Route(
        method="post",
        path="/v1/responses",
        summary="Answer an input as OpenAI's Responses API does, without keeping it.",
        scope="infer",
        request=RESPONSES,
        reply=ResponseObject,
        events=ResponseEvent,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("responses", __name__)

    @blueprint.post("/responses")
    def responses() -> Response:
        who = require("infer")
        asked = parse_response(json_body(), lenient=settings.lenient)
        with own_names():
            begun = begin(services, who, "responses", asked.model, asked.request)
        lease = begun.visit.lease
        head = ResponseHead(
            id="resp_" + uuid.uuid4().hex,
            created=int(time.time()),
            model=asked.model or lease.card.id,
            asked=asked.asked,
            speller=None if begun.wanted.top_logprobs is None else Speller(lease.model),
        )
        return serving.answer(begun.exchange, ResponseReply(head), begun.visit, stream=asked.stream, settings=settings)

    return blueprint
