"""Tools as a request brings them: whether they mean something. Their types were checked where the bytes were read."""

import re
from collections.abc import Sequence
from typing import Any

from device_agent.conversation.records import ToolChoice
from device_agent.conversation.tools.schemas import mistake, prepared
from edgekit.chat import MAX_JSON_DEPTH, Tool, parsed_object
from edgekit.errors import InvalidRequest

MAX_TOOLS = 128
"""OpenAI's limit (API reference, chat, `tools`)."""

MAX_SCHEMA_CHARS = 32 << 10
MAX_DESCRIPTION_CHARS = 16 << 10

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # OpenAI's, in its own words


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
    if problem := mistake(schema):
        raise InvalidRequest(f"{where} is not a JSON schema that can be followed: {problem}.", param=where)
    return prepared(schema)
