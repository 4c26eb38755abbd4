"""The form of an answer: OpenAI's `response_format`, and `grammar` for what no JSON schema says."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from device_agent.engine.records import Grammar
from device_agent.http.schema import limits
from edgekit.errors import InvalidRequest

ANY_OBJECT: Final = '{"type":"object"}'
"""The schema of `json_object`."""


class JsonSchema(msgspec.Struct, kw_only=True):
    """OpenAI's `response_format.json_schema`. Answers always follow the schema, so `strict` asks for nothing more."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema: dict[str, Any] | bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """`schema` is where other servers have it; it is known here only to be refused in words."""

    type: str
    json_schema: JsonSchema | None = None
    schema: Any = None


class GrammarBody(msgspec.Struct, kw_only=True):
    """What other servers call guided_regex and guided_grammar; Lark is llguidance's dialect."""

    type: Literal["regex", "lark"]
    value: Annotated[str, Meta(min_length=1, max_length=limits.GRAMMAR_CHARS)]


def grammar_of(response_format: ResponseFormat | None, grammar: GrammarBody | None) -> Grammar | None:
    """The one form that was asked for, None for free text. Raises InvalidRequest."""
    wanted = None if response_format is None else _formatted(response_format)
    if grammar is None:
        return wanted
    if wanted is not None:
        raise InvalidRequest("grammar and response_format contradict each other: send one.", param="grammar")
    return Grammar(grammar.type, grammar.value)


def _formatted(wanted: ResponseFormat) -> Grammar | None:
    if wanted.schema is not None:
        raise InvalidRequest(
            "The schema belongs at response_format.json_schema.schema, not at response_format.schema.",
            param="response_format.schema",
        )
    if wanted.type != "json_schema" and wanted.json_schema is not None:
        raise InvalidRequest("A json_schema needs the type 'json_schema'.", param="response_format.type")
    match wanted.type:
        case "text":
            return None
        case "json_object":
            return Grammar("json_schema", ANY_OBJECT)
        case "json_schema":
            return Grammar("json_schema", _schema(wanted.json_schema))
    raise InvalidRequest(
        f"response_format.type is one of text, json_object, json_schema, not {wanted.type[:100]!r}.",
        param="response_format.type",
    )


def _schema(wanted: JsonSchema | None) -> str:
    param = "response_format.json_schema.schema"
    if wanted is None or wanted.schema is None:
        raise InvalidRequest(f"The type 'json_schema' needs a schema at {param}.", param=param)
    text = msgspec.json.encode(wanted.schema)
    if len(text) > limits.SCHEMA_BYTES:
        raise InvalidRequest(f"A schema has at most {limits.SCHEMA_BYTES:,} bytes.", param=param)
    return text.decode()
