"""POST /tokenize, /detokenize and /apply-template, with llama.cpp's shapes. No token is made, so none is counted."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Blueprint, Response

from device_agent.engine.records import ModelService
from device_agent.http.bodies import as_json, json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.replies.shapes import Detokenized, Rendered, Tokenized, TokenPiece
from device_agent.http.schema.form import read
from device_agent.http.schema.text import DETOKENIZE, TEMPLATE, TOKENIZE
from device_agent.http.schema.tools import tools_of
from device_agent.http.schema.turns import messages_of
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings
from edgekit.errors import InvalidRequest

ROUTES = (
    Route(
        method="post",
        path="/tokenize",
        summary="Cut a text into this model's tokens.",
        scope="infer",
        request=TOKENIZE,
        reply=Tokenized,
    ),
    Route(
        method="post",
        path="/detokenize",
        summary="Put tokens together to a text.",
        scope="infer",
        request=DETOKENIZE,
        reply=Detokenized,
    ),
    Route(
        method="post",
        path="/apply-template",
        summary="See a conversation as the model does.",
        scope="infer",
        request=TEMPLATE,
        reply=Rendered,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("text", __name__)

    @contextmanager
    def leased(name: str | None) -> Iterator[ModelService]:
        lease = services.models.lease(name or "")
        try:
            yield lease.model
        finally:
            lease.release()

    @blueprint.post("/tokenize")
    def tokenize() -> Response:
        require("infer")
        body = read(json_body(), TOKENIZE, lenient=settings.lenient)
        with leased(body.model) as model:
            ids = _ids(model, body.content, special=bool(body.add_special))
            if not body.with_pieces:
                return as_json(Tokenized(tokens=list(ids)))
            return as_json(Tokenized(tokens=[TokenPiece(id=one, piece=_piece(model.token_bytes(one))) for one in ids]))

    @blueprint.post("/detokenize")
    def detokenize() -> Response:
        require("infer")
        body = read(json_body(), DETOKENIZE, lenient=settings.lenient)
        with leased(body.model) as model:
            vocab = model.manifest.arch.vocab
            if body.tokens and max(body.tokens) >= vocab:
                raise InvalidRequest(f"tokens: this model's token ids go from 0 to {vocab - 1}.", param="tokens")
            text = model.text_of(body.tokens)
        return as_json(Detokenized(content=text))

    @blueprint.post("/apply-template")
    def apply_template() -> Response:
        require("infer")
        body = read(json_body(), TEMPLATE, lenient=settings.lenient)
        messages, tools = messages_of(body.messages), tools_of(body.tools or ())
        with leased(body.model) as model:
            return as_json(Rendered(prompt=model.rendered(messages, tools=tools)))

    return blueprint


def _ids(model: ModelService, text: str, *, special: bool) -> tuple[int, ...]:
    """Ids of a text, with or without what the model's texts begin with."""
    ids = model.text_prompt(text)
    first = model.manifest.tokens.bos
    return ids[1:] if not special and first is not None and ids[:1] == (first,) else ids


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
