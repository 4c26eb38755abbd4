"""Messages as a template can take them: with tools described, and with earlier calls and their results.

Where a template does not know tools, they are described in a system message of ours; where it does not know calls,
those are written out as the model would have written them, and their results as what a user says.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from device_agent.conversation.tools.records import Syntax
from edgekit.chat import Message, Tool, ToolCall, parsed_object

_NO_SYSTEM = re.compile(r"system role (?:is )?not supported", re.IGNORECASE)
"""What Gemma's templates refuse system messages with."""

_KNOWS_TOOLS = re.compile(r"\btools\b")
_KNOWS_CALLS = re.compile(r"\btool_calls\b")
_NINE = re.compile(r"[a-zA-Z0-9]{9}")

_OURS = """\
You can call functions. These are the functions, each as JSON with its name, what it does and its parameters:
<tools>
{tools}
</tools>
To call a function, answer with its name and its arguments in this form, and write nothing else:
{example}
Call a function if it helps with what the user asks for. Otherwise answer in plain words."""


@dataclass(frozen=True, slots=True)
class Told:
    """Messages and tools for a template."""

    messages: tuple[Message, ...]
    template_tools: tuple[Tool, ...]


def retold(messages: Sequence[Message], tools: Sequence[Tool], syntax: Syntax, template: str | None) -> Told:
    """What the template is given. With no `tools`, only earlier calls are looked after."""
    source = template or ""
    turns = [_named(message, messages) for message in messages]
    if not _KNOWS_CALLS.search(source):
        turns = _written(turns, syntax)
    elif syntax.with_id:
        turns = [_with_nine(turn) for turn in turns]
    if not tools:
        return Told(tuple(turns), ())
    if _KNOWS_TOOLS.search(source):
        return Told(tuple(_with_system(turns, syntax.system, behind=False) if syntax.system else turns), tuple(tools))
    turns = _with_system(turns, _description(tools, syntax), behind=True)
    return Told(tuple(_without_system(turns) if _NO_SYSTEM.search(source) else turns), ())


# --- calls and results ----------------------------------------------------------------------


def _named(message: Message, messages: Sequence[Message]) -> Message:
    """A tool's message with the tool's name, which clients leave out and some templates write."""
    if message.role != "tool" or message.name is not None or message.tool_call_id is None:
        return message
    names = {call.id: call.name for other in messages for call in other.tool_calls}
    return msgspec.structs.replace(message, name=names.get(message.tool_call_id))


def _written(turns: Sequence[Message], syntax: Syntax) -> list[Message]:
    """Calls and results as text. Results that follow each other, and what the user says then, are one turn."""
    told: list[Message] = []
    after_result = False
    for turn in turns:
        text = _text(turn, syntax)
        is_result = turn.role == "tool"
        role = "user" if is_result else turn.role
        if after_result and role == "user":
            told[-1] = Message(role="user", content=f"{told[-1].content}\n{text}")
        else:
            told.append(Message(role=role, content=text, name=None if is_result else turn.name))
        after_result = role == "user" and (is_result or after_result)
    return told


def _text(turn: Message, syntax: Syntax) -> str:
    if turn.role == "tool":
        return f"<tool_response>\n{turn.content}\n</tool_response>"
    if not turn.tool_calls:
        return turn.content
    calls = written_calls(turn.tool_calls, syntax)
    return f"{turn.content}\n{calls}" if turn.content else calls


def written_calls(calls: Sequence[ToolCall], syntax: Syntax) -> str:
    """Calls as a model writes them."""
    texts = [f"{syntax.head}{call.name}{syntax.middle}{_spaced(call.arguments)}{syntax.tail}" for call in calls]
    if syntax.listed:
        return f"{syntax.opening}[{syntax.separator.join(texts)}]{syntax.closing}"
    return syntax.separator.join(f"{syntax.opening}{text}{syntax.closing}" for text in texts)


def _spaced(arguments: str) -> str:
    """A JSON object with white space as models are used to it; what is none stays as it is."""
    found = parsed_object(arguments)
    return arguments if found is None else json.dumps(found, ensure_ascii=False)


def _with_nine(turn: Message) -> Message:
    """The same ids, where they must have nine letters and digits: Mistral's templates refuse others."""
    return msgspec.structs.replace(
        turn,
        tool_calls=tuple(msgspec.structs.replace(call, id=_nine(call.id)) for call in turn.tool_calls),
        tool_call_id=None if turn.tool_call_id is None else _nine(turn.tool_call_id),
    )


def _nine(text: str) -> str:
    if _NINE.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return base64.b32encode(digest).decode()[:9]


# --- tools ----------------------------------------------------------------------------------


def _description(tools: Sequence[Tool], syntax: Syntax) -> str:
    lines = [
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": parsed_object(tool.parameters)},
            ensure_ascii=False,
        )
        for tool in tools
    ]
    example = written_calls([ToolCall(id="", name="NAME", arguments='{"PARAMETER": "VALUE"}')], syntax)
    return _OURS.format(tools="\n".join(lines), example=example)


def _with_system(turns: Sequence[Message], text: str, *, behind: bool) -> list[Message]:
    """`text` as the system message; if there is one, behind it with `behind`, else that one is enough."""
    if turns and turns[0].role == "system":
        first = _saying(turns[0], f"{turns[0].content}\n\n{text}") if behind else turns[0]
        return [first, *turns[1:]]
    return [Message(role="system", content=text), *turns]


def _without_system(turns: Sequence[Message]) -> list[Message]:
    """The system message as the beginning of what the user says first."""
    system, *others = turns
    if others and others[0].role == "user":
        return [_saying(others[0], f"{system.content}\n\n{others[0].content}"), *others[1:]]
    return [Message(role="user", content=system.content), *others]


def _saying(message: Message, content: str) -> Message:
    """The same message with other words."""
    return msgspec.structs.replace(message, content=content)
