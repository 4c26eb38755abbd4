"""The OpenAI-compatible routes, each also without `/v1` as llama.cpp has them. See the reference in replies.py."""

import time
import uuid

import msgspec
from flask import Blueprint, Response, request

from device_agent.engine.records import Answer, ModelService
from device_agent.http import answering, replies
from device_agent.http.replies import Json, Kind, Reply
from device_agent.http.schema import ModelFacts, Request, TokenIds, parse_chat, parse_completion
from device_agent.http.settings import HttpSettings
from edgekit.errors import InvalidRequest, RouteError, UnknownModel

_ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-"}


def routes(service: ModelService, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("openai", __name__)
    manifest = service.manifest
    facts = ModelFacts(name=manifest.name, context_tokens=service.context_tokens, vocab=manifest.arch.vocab)
    card = replies.model(manifest, context_tokens=service.context_tokens, loaded_at=service.loaded_at)

    @blueprint.get("/models")
    def models() -> Response:
        return as_json({"object": "list", "data": [card]})

    @blueprint.get("/models/<path:name>")
    def model(name: str) -> Response:
        if name != manifest.name:
            raise UnknownModel(name[:200], manifest.name)
        return as_json(card)

    @blueprint.post("/chat/completions")
    def chat_completions() -> Response:
        return _answered(service, settings, "chat", parse_chat(_body(), facts))

    @blueprint.post("/completions")
    def completions() -> Response:
        return _answered(service, settings, "completion", parse_completion(_body(), facts))

    return blueprint


def as_json(value: object, status: int = 200) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def _body() -> bytes:
    """The request's bytes. Raises RouteError 415 unless they are said to be JSON, once, in UTF-8."""
    said = request.headers.get("Content-Type", "")
    if request.mimetype != "application/json" or request.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise RouteError(f"Send the body as application/json, not {said[:100]!r}.", http_status=415)
    return request.get_data(cache=False)


def _answered(service: ModelService, settings: HttpSettings, kind: Kind, asked: Request) -> Response:
    prompt = _prompt_ids(service, asked)
    reply = Reply(
        kind=kind,
        id=_ID_PREFIX[kind] + uuid.uuid4().hex,
        created=int(time.time()),
        model=service.manifest.name,
        fingerprint=replies.fingerprint(service.manifest),
        with_usage=asked.stream and asked.include_usage,
    )
    # waitress gives this callable when it looks ahead for the client's end of file (server.py).
    gone: answering.Gone = request.environ.get("waitress.client_disconnected", _never)
    answer = service.submit(asked.generation(prompt))  # errors up to here still have their own status line
    if asked.stream:
        return _stream(answer, reply, len(prompt), gone, settings)
    try:
        body: Json = answering.whole(answer, reply, prompt_tokens=len(prompt), gone=gone, settings=settings)
    except answering.ClientGone:
        return Response(status=499)  # nobody reads it; nginx's code for the same
    finally:
        answer.cancel()
    return as_json(body)


def _stream(answer: Answer, reply: Reply, prompt_tokens: int, gone: answering.Gone, settings: HttpSettings) -> Response:
    events = answering.events(answer, reply, prompt_tokens=prompt_tokens, gone=gone, settings=settings)
    response = Response(events, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the tokens
    # The server closes a response that ended or whose client left, even one of which it read nothing.
    response.call_on_close(answer.cancel)
    return response


def _prompt_ids(service: ModelService, asked: Request) -> tuple[int, ...]:
    match asked.prompt:
        case TokenIds(ids):
            found = ids
        case str(text):
            found = service.text_prompt(text)
        case messages:
            found = service.chat_prompt(messages)
    if not found:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    return found


def _never() -> bool:
    return False
