"""Requests with two tools, and events put together."""

from collections.abc import Sequence

from device_agent.conversation.records import Argued, Called, ChatRequest, Said, ToolChoice
from device_agent.conversation.tools.records import Found
from device_agent.engine.records import Grammar
from edgekit.chat import Message, Tool

WEATHER = Tool(
    name="get_weather",
    description="Weather of a city",
    parameters='{"type":"object","properties":{"city":{"$ref":"#/$defs/place"}},"required":["city"],'
    '"$defs":{"place":{"type":"string"}}}',
)
ADD = Tool(
    name="add",
    parameters='{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"]}',
)
HELLO = Message(role="user", content="Hello")


def request(
    *messages: Message,
    tools: Sequence[Tool] = (WEATHER, ADD),
    choice: ToolChoice = ToolChoice(),  # noqa: B008 - a frozen record
    parallel: bool = True,
    grammar: Grammar | None = None,
) -> ChatRequest:
    return ChatRequest(
        messages=messages or (HELLO,),
        tools=tuple(tools),
        tool_choice=choice,
        parallel_calls=parallel,
        grammar=grammar,
    )


def said(events: Sequence[Found]) -> str:
    return "".join(event.text for event in events if isinstance(event, Said))


def calls(events: Sequence[Found]) -> list[tuple[str, str]]:
    """Names and arguments, in order."""
    return [
        (
            event.name,
            "".join(one.fragment for one in events if isinstance(one, Argued) and one.call == event.call),
        )
        for event in events
        if isinstance(event, Called)
    ]
