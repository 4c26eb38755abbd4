"""POST /v1/embeddings."""

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from flask import Blueprint, Response, g

from device_agent.conversation.records import Spent
from device_agent.http import serving
from device_agent.http.bodies import as_json, json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.replies.shapes import Embedding, EmbeddingList, EmbeddingUsage
from device_agent.http.schema import limits
from device_agent.http.schema.embeddings import EMBEDDINGS, EmbeddingBody, parse_embedding
from device_agent.http.services import Encoder, Services
from device_agent.http.settings import HttpSettings
from device_agent.http.streaming import ClientGone, Gone
from device_agent.http.visit import Visit
from edgekit.errors import InvalidRequest

TOGETHER = 8
"""Texts between two looks at whether the client is still there."""

Vectors = npt.NDArray[np.float32]

ROUTES = (
    Route(
        method="post",
        path="/v1/embeddings",
        summary="Turn texts into vectors.",
        scope="infer",
        request=EMBEDDINGS,
        reply=EmbeddingList,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("embeddings", __name__)

    @blueprint.post("/embeddings")
    def embeddings() -> Response:
        who = require("infer")
        body, texts = parse_embedding(json_body(), lenient=settings.lenient)
        g.visit = visit = Visit(services, who, "embeddings", body.model or "")
        named = body.model or visit.lease.card.id
        tokens, finish = 0, "error"
        try:
            visit.asked("\n".join(texts))
            encoder = visit.lease.encoder
            tokens = _count(encoder, texts)
            vectors = _shortened(_embed(encoder, texts, serving.client_gone()), body.dimensions)
            finish = "stop"
        except ClientGone:
            finish = "cancelled"
            return Response(status=serving.CLIENT_CLOSED_REQUEST)
        finally:
            visit.close(Spent(input=tokens), finish=finish)
        return as_json(_reply(vectors, body, named=named, tokens=tokens))

    return blueprint


def _count(encoder: Encoder, texts: Sequence[str]) -> int:
    """Tokens of all texts. Raises InvalidRequest for too many, and what `Encoder.tokens` raises."""
    total = 0
    for text in texts:
        total += len(encoder.tokens(text))
        if total > limits.INPUT_TOKENS:
            raise InvalidRequest(f"The inputs have more than {limits.INPUT_TOKENS:,} tokens.", param="input")
    return total


def _embed(encoder: Encoder, texts: Sequence[str], gone: Gone) -> Vectors:
    """[texts, dimension]. Raises ClientGone, and what `Encoder.embed` raises."""
    found = []
    for start in range(0, len(texts), TOGETHER):
        if gone():
            raise ClientGone
        found.append(encoder.embed(texts[start : start + TOGETHER]))
    return np.concatenate(found)


def _shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` of each, of length 1 again (Matryoshka Representation Learning, arXiv 2205.13147)."""
    size = vectors.shape[1]
    if dimensions is None or dimensions == size:
        return vectors
    if dimensions > size:
        raise InvalidRequest(f"dimensions is {dimensions}, but this model's vectors have {size}.", param="dimensions")
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return (cut / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def _reply(vectors: Vectors, body: EmbeddingBody, *, named: str, tokens: int) -> EmbeddingList:
    return EmbeddingList(
        data=[
            Embedding(index=index, embedding=_base64(vector) if body.encoding_format == "base64" else vector.tolist())
            for index, vector in enumerate(vectors)
        ],
        model=named,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
