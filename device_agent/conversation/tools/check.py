"""Tools as a request brings them: whether they mean something. Their types were checked where the bytes were read."""

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import llguidance

from device_agent.conversation.records import ToolChoice
from edgekit.chat import MAX_JSON_DEPTH, Tool, parsed_object
from edgekit.errors import InvalidRequest

MAX_TOOLS = 128
"""OpenAI's limit (API reference, chat, `tools`)."""

MAX_SCHEMA_CHARS = 32 << 10
MAX_DESCRIPTION_CHARS = 16 << 10

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # OpenAI's, in its own words

# JSON as models were trained to write it in calls, and bounded white space; keywords that llguidance does not know are
# passed over: tools are described with many that no model needs.
SPACING: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LENIENT = {**SPACING, "lenient": True}

# Next to one of these, "no other properties" would mean something else.
_APPLICATORS = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "additionalProperties")


def checked_schemas(tools: Sequence[Tool], choice: ToolChoice) -> dict[str, dict[str, Any]]:
    """Names of the tools and JSON schemas of their arguments, as a grammar takes them.

    Raises InvalidRequest for what `plan` lists.
    """
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(f"tools: {len(tools)} are more than {MAX_TOOLS}.", param="tools")
    found: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(tools):
        where = f"tools[{index}].function"
        _check_name(tool, found, where)
        found[tool.name] = _schema(tool.parameters, f"{where}.parameters")
    _check_choice(choice, found)
    return found


def _check_name(tool: Tool, known: dict[str, dict[str, Any]], where: str) -> None:
    if not _NAME.fullmatch(tool.name):
        raise InvalidRequest(
            f"{where}.name: a name has 1 to 64 letters, digits, underscores and hyphens.", param=f"{where}.name"
        )
    if tool.name in known:
        raise InvalidRequest(f"{where}.name: there are two tools of the name {tool.name!r}.", param=f"{where}.name")
    if len(tool.description) > MAX_DESCRIPTION_CHARS:
        raise InvalidRequest(
            f"{where}.description has more than {MAX_DESCRIPTION_CHARS:,} characters.", param=f"{where}.description"
        )


def _check_choice(choice: ToolChoice, known: dict[str, dict[str, Any]]) -> None:
    if choice.mode in ("required", "named") and not known:
        raise InvalidRequest("tool_choice: there are no tools to choose from.", param="tool_choice")
    if choice.mode == "named" and choice.name not in known:
        raise InvalidRequest(f"tool_choice: there is no tool {(choice.name or '')[:100]!r}.", param="tool_choice")


def _schema(text: str, where: str) -> dict[str, Any]:
    if len(text) > MAX_SCHEMA_CHARS:
        raise InvalidRequest(f"{where} has more than {MAX_SCHEMA_CHARS:,} characters.", param=where)
    schema = parsed_object(text)
    if schema is None:
        raise InvalidRequest(
            f"{where}: expected a JSON schema of an object, at most {MAX_JSON_DEPTH} levels deep.", param=where
        )
    if schema.get("type", "object") != "object":
        raise InvalidRequest(f"{where}: arguments are an object, so the schema's type must be 'object'.", param=where)
    prepared = _prepared(schema)
    if problem := _problem(json.dumps(prepared)):
        raise InvalidRequest(f"{where} is not a JSON schema that can be followed: {problem}.", param=where)
    return prepared


def _prepared(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object. Where properties are listed, there are no others: models invent them otherwise."""
    closed = {} if any(name in schema for name in _APPLICATORS) else {"additionalProperties": False}
    return {
        **{key: value for key, value in schema.items() if key != "x-guidance"},
        "type": "object",
        **(closed if "properties" in schema else {}),
        "x-guidance": _LENIENT,
    }


@functools.lru_cache(maxsize=512)  # clients send the same tools with every request
def _problem(schema: str) -> str:
    """What is wrong with a schema, "" if nothing."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)
    failed, problems = llguidance.LLMatcher.validate_grammar_with_warnings(grammar)
    return str(problems[0])[:300] if failed else ""
