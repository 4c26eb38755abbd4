"""POST /v1/completions."""

from flask import Blueprint, Response

from device_agent.conversation.complete import CompletionRequest, start_completion
from device_agent.http import serving
from device_agent.http.bodies import json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.replies.completions import CompletionReply
from device_agent.http.replies.shapes import TextCompletion
from device_agent.http.replies.spelling import Speller
from device_agent.http.schema.completions import COMPLETIONS, AskedCompletion, parse_completion
from device_agent.http.schema.sampling import check_sampling
from device_agent.http.services import ModelName, Services
from device_agent.http.settings import HttpSettings
from device_agent.http.visit import Visit
from edgekit.errors import InvalidRequest

ROUTES = (
    Route(
        method="post",
        path="/v1/completions",
        summary="Continue one or several texts.",
        scope="infer",
        request=COMPLETIONS,
        reply=TextCompletion,
        events=TextCompletion,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("completions", __name__)

    @blueprint.post("/completions")
    def completions() -> Response:
        who = require("infer")
        asked = parse_completion(json_body(), lenient=settings.lenient)
        visit = Visit(services, who, "completions", asked.model)
        with serving.beginning(visit):
            model = visit.lease.model
            visit.asked("\n".join(map(str, asked.prompts)))
            check_sampling(asked.sampling, asked.max_tokens, serving.facts_of(model))
            reply = CompletionReply(
                envelope=serving.envelope(visit, "cmpl-", named=asked.model, with_usage=asked.include_usage),
                choices=len(asked.prompts) * asked.choices,
                speller=Speller(model),
                with_logprobs=asked.top_logprobs is not None,
            )
            exchange = start_completion(model, _wanted(asked, visit.lease.name))
        return serving.answer(exchange, reply, visit, stream=asked.stream, settings=settings)

    return blueprint


def _wanted(asked: AskedCompletion, name: ModelName) -> CompletionRequest:
    if name.strategy is not None:
        raise InvalidRequest(
            "A strategy is a way to answer a conversation: ask /v1/chat/completions for it.", param="model"
        )
    return CompletionRequest(
        prompts=asked.prompts,
        sampling=asked.sampling,
        max_tokens=asked.max_tokens,
        stop=asked.stop,
        grammar=asked.grammar,
        choices=asked.choices,
        echo=asked.echo,
        top_logprobs=asked.top_logprobs,
        adapter=name.adapter,
    )
