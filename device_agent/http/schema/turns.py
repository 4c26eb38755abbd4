"""A conversation's messages. What an SDK sends back of our own answers is accepted as it came."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from device_agent.http.schema import limits
from edgekit.chat import Message, ToolCall
from edgekit.errors import InvalidRequest

ROLES: Mapping[str, str] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
)
"""Roles on the wire, and those that templates know."""

SPEAKER: Final = r"^[^\s<|\\/>]+$"
"""OpenAI's pattern for `name`: nothing in it can look like a control token of a template."""

TEXT_ONLY: Final = "This agent reads text only"

Speaker = Annotated[str, Meta(min_length=1, max_length=limits.SPEAKER_CHARS, pattern=SPEAKER)]
CallId = Annotated[str, Meta(min_length=1, max_length=limits.CALL_ID_CHARS, pattern=SPEAKER)]


class Part(msgspec.Struct, kw_only=True):
    """A part of a message; those that are not text are known by name, to be refused in words."""

    type: Annotated[str, Meta(extra_json_schema={"const": "text"})]
    text: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: Any = None


class CalledFunction(msgspec.Struct, kw_only=True):
    """`parsed_arguments` is what the SDK's parser adds to our answer."""

    name: Speaker
    arguments: str
    parsed_arguments: Any = None


class Call(msgspec.Struct, kw_only=True):
    """A call that the assistant made; `index` is what is left of a stream."""

    id: CallId
    function: CalledFunction
    type: str = "function"
    index: Any = None


class Turn(msgspec.Struct, kw_only=True):
    """A message. `reasoning_content` and `parsed` may be sent back, and are not shown to the model again.

    The last four are in our own answers too, and must say nothing.
    """

    role: Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]
    content: str | Annotated[list[Part], Meta(max_length=limits.PARTS)] | None = None
    name: Speaker | None = None
    tool_calls: Annotated[list[Call], Meta(max_length=limits.CALLS)] | None = None
    tool_call_id: CallId | None = None
    reasoning_content: str | None = None
    parsed: Any = None
    refusal: Literal[""] | None = None
    function_call: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None


def messages_of(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Checked messages; a tool's gets the name of the call that it answers. Raises InvalidRequest."""
    calls: dict[str, str] = {}
    found = []
    for index, turn in enumerate(turns):
        found.append(_message(turn, f"messages[{index}]", calls))
        calls |= {call.id: call.name for call in found[-1].tool_calls}
    return tuple(found)


def _message(turn: Turn, where: str, calls: Mapping[str, str]) -> Message:
    if turn.role not in ROLES:
        known = ", ".join(ROLES)
        raise InvalidRequest(f"The role {turn.role[:100]!r} is not one of: {known}.", param=f"{where}.role")
    if turn.content is None and turn.role != "assistant":
        raise InvalidRequest(f"A message of the role {turn.role!r} needs content.", param=f"{where}.content")
    return Message(
        role=ROLES[turn.role],
        content=_text(turn.content, f"{where}.content"),
        tool_calls=_calls(turn, where),
        tool_call_id=_answered(turn, where, calls),
        name=calls.get(turn.tool_call_id or "") if turn.role == "tool" else turn.name,
    )


def _text(content: str | list[Part] | None, where: str) -> str:
    """Text of a message; several parts are joined by line breaks, as llama.cpp and vLLM do."""
    if content is None or isinstance(content, str):
        return content or ""
    for index, part in enumerate(content):
        if part.type != "text":
            raise InvalidRequest(f"{TEXT_ONLY}, no part of the type {part.type[:100]!r}.", param=f"{where}[{index}]")
        if part.text is None:
            raise InvalidRequest("A part of the type 'text' needs a text.", param=f"{where}[{index}]")
    return "\n".join(part.text or "" for part in content)


def _calls(turn: Turn, where: str) -> tuple[ToolCall, ...]:
    calls = turn.tool_calls or ()
    if calls and turn.role != "assistant":
        raise InvalidRequest("Only the assistant calls tools.", param=f"{where}.tool_calls")
    return tuple(_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls))


def _call(call: Call, where: str) -> ToolCall:
    if call.type != "function":
        raise InvalidRequest(
            f"Only tools of the type 'function' exist, not {call.type[:100]!r}.", param=f"{where}.type"
        )
    arguments = call.function.arguments.strip() or "{}"  # what several clients send for a call without any
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            "The arguments of a call are the text of a JSON object.", param=f"{where}.function.arguments"
        ) from error
    return ToolCall(id=call.id, name=call.function.name, arguments=arguments)


def _answered(turn: Turn, where: str, calls: Mapping[str, str]) -> str | None:
    """The call that a tool's message answers."""
    param = f"{where}.tool_call_id"
    if turn.role != "tool":
        if turn.tool_call_id is not None:
            raise InvalidRequest("Only a message of the role 'tool' answers a call.", param=param)
        return None
    if turn.tool_call_id is None:
        raise InvalidRequest("A message of the role 'tool' needs the tool_call_id that it answers.", param=param)
    if turn.tool_call_id not in calls:
        raise InvalidRequest(f"No earlier message has a call with the id {turn.tool_call_id!r}.", param=param)
    return turn.tool_call_id
