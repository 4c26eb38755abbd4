"""The tools that a model may call, and whether it must."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from device_agent.conversation.records import ToolChoice, ToolMode
from device_agent.http.schema import limits
from edgekit.chat import Tool
from edgekit.errors import InvalidRequest

ToolName = Annotated[str, Meta(min_length=1, max_length=limits.SPEAKER_CHARS, pattern=r"^[a-zA-Z0-9_-]+$")]


class Function(msgspec.Struct, kw_only=True):
    """`parameters` is a JSON schema; calls always follow it, so that `strict` asks for what is done anyway."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct, kw_only=True):
    """A tool as OpenAI writes it."""

    type: Annotated[str, Meta(extra_json_schema={"const": "function"})]
    function: Function | None = None


class Named(msgspec.Struct, kw_only=True):
    """The function of a named choice."""

    name: str


class NamedChoice(msgspec.Struct, kw_only=True):
    """`tool_choice` with a name."""

    type: str
    function: Named | None = None


_MODES: dict[str, ToolMode] = {"none": "none", "auto": "auto", "required": "required"}


def tools_of(bodies: Sequence[ToolBody]) -> tuple[Tool, ...]:
    """Checked tools, of different names. Raises InvalidRequest."""
    tools = tuple(_tool(body, f"tools[{index}]") for index, body in enumerate(bodies))
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidRequest(f"Two tools have the name {name!r}.", param=f"tools[{index}].function.name")
    return tools


def _tool(body: ToolBody, where: str) -> Tool:
    if body.type != "function":
        raise InvalidRequest(
            f"Only tools of the type 'function' exist, not {body.type[:100]!r}.", param=f"{where}.type"
        )
    if body.function is None:
        raise InvalidRequest("A tool of the type 'function' needs a function.", param=f"{where}.function")
    wanted = body.function
    if wanted.parameters is None:
        return Tool(name=wanted.name, description=wanted.description or "")
    parameters = msgspec.json.encode(wanted.parameters)
    if len(parameters) > limits.SCHEMA_BYTES:
        raise InvalidRequest(
            f"A schema has at most {limits.SCHEMA_BYTES:,} bytes.", param=f"{where}.function.parameters"
        )
    return Tool(name=wanted.name, description=wanted.description or "", parameters=parameters.decode())


def tool_choice_of(wanted: str | NamedChoice | None, tools: Sequence[Tool]) -> ToolChoice:
    """What is to be called. Raises InvalidRequest for a call that no tool can answer."""
    if wanted is None:
        return ToolChoice()
    if isinstance(wanted, str):
        if wanted not in _MODES:
            raise InvalidRequest(
                f"tool_choice is one of {', '.join(_MODES)}, or names a function, not {wanted[:100]!r}.",
                param="tool_choice",
            )
        if wanted == "required" and not tools:
            raise InvalidRequest("tool_choice is 'required', but there are no tools.", param="tool_choice")
        return ToolChoice(_MODES[wanted])
    if wanted.type != "function" or wanted.function is None:
        raise InvalidRequest(
            'tool_choice names a function as {"type":"function","function":{"name":...}}.', param="tool_choice"
        )
    if wanted.function.name not in {tool.name for tool in tools}:
        raise InvalidRequest(
            f"tool_choice names {wanted.function.name[:100]!r}, which is none of the tools.", param="tool_choice"
        )
    return ToolChoice("named", wanted.function.name)
