"""POST /v1/embeddings: the body, and the texts that it means."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from device_agent.http.schema import limits
from device_agent.http.schema.form import Form, read
from device_agent.http.schema.sampling import ModelId
from edgekit.errors import InvalidRequest

Text = Annotated[str, Meta(min_length=1)]
Item = Annotated[Any, Meta(extra_json_schema={"type": "string", "minLength": 1})]
"""Looked at one by one, so that token ids can be told from other mistakes."""

NO_IDS: Final = (
    "input: send texts, not token ids: they come from another model's vocabulary. With LangChain's OpenAIEmbeddings,"
    " set check_embedding_ctx_length=False."
)


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """Supported parameters. `dimensions` cuts vectors, which only models trained for it (Matryoshka) survive well."""

    model: ModelId | None = None
    input: Text | Annotated[list[Item], Meta(min_length=1, max_length=limits.INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


LABELS: Mapping[str, type] = MappingProxyType({"user": str})

EMBEDDINGS = Form(shape=EmbeddingBody, labels=LABELS)


def parse_embedding(raw: bytes, *, lenient: bool = False) -> tuple[EmbeddingBody, tuple[str, ...]]:
    """The body, and its texts. Raises InvalidRequest."""
    body = read(raw, EMBEDDINGS, lenient=lenient)
    return body, (body.input,) if isinstance(body.input, str) else _texts(body.input)


def _texts(inputs: list[Any]) -> tuple[str, ...]:
    """Texts of a list. LangChain sends ids that tiktoken made, whatever the model is."""
    for index, text in enumerate(inputs):
        if isinstance(text, int | list):
            raise InvalidRequest(NO_IDS, param="input")
        if not isinstance(text, str) or not text:
            raise InvalidRequest(f"input[{index}]: expected a text that is not empty.", param="input")
    return tuple(inputs)
