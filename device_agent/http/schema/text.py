"""POST /tokenize, /detokenize and /apply-template: llama.cpp's bodies."""

from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta

from device_agent.http.schema import limits
from device_agent.http.schema.form import Form
from device_agent.http.schema.sampling import ModelId, TokenId
from device_agent.http.schema.tools import ToolBody
from device_agent.http.schema.turns import Turn


class TokenizeBody(msgspec.Struct, kw_only=True):
    """`add_special` puts the token in front that every text of this model begins with, if it has one."""

    content: str
    model: ModelId | None = None
    add_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """Ids to become text."""

    tokens: Annotated[list[TokenId], Meta(max_length=limits.DETOKENIZED)]
    model: ModelId | None = None


class TemplateBody(msgspec.Struct, kw_only=True):
    """A conversation to become a prompt."""

    messages: Annotated[list[Turn], Meta(min_length=1, max_length=limits.MESSAGES)]
    tools: Annotated[list[ToolBody], Meta(max_length=limits.TOOLS)] | None = None
    model: ModelId | None = None


TOKENIZE = Form(
    shape=TokenizeBody,
    neutral=MappingProxyType({"parse_special": ("false",)}),  # special tokens in somebody's text are text
    elsewhere=MappingProxyType({"prompt": "Its name here is content.", "text": "Its name here is content."}),
)
DETOKENIZE = Form(shape=DetokenizeBody)
TEMPLATE = Form(shape=TemplateBody)
