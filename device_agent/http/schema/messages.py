"""POST /v1/messages: the body of Anthropic's Messages API, and the ChatRequest that it means.

Reference: docs.anthropic.com, API reference, "Messages". Texts are cached here by themselves, so `cache_control` asks
for what is done anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from device_agent.conversation.records import ChatRequest, ToolChoice
from device_agent.http.schema import limits
from device_agent.http.schema.chat import Extension
from device_agent.http.schema.form import Form, read
from device_agent.http.schema.sampling import AnswerBody, ModelId, StopText, sampling_of
from device_agent.http.schema.tools import Function, Named, NamedChoice, ToolBody, ToolName, tool_choice_of, tools_of
from device_agent.http.schema.turns import TEXT_ONLY, CallId
from edgekit.chat import Message, Tool, ToolCall
from edgekit.errors import InvalidRequest


class CacheControl(msgspec.Struct, kw_only=True):
    """Asks to keep what was read so far; the prefix cache does."""

    type: Literal["ephemeral"]
    ttl: str | None = None


class ContentBlock(msgspec.Struct, kw_only=True):
    """A part of a message. `thinking` and its signature are our own answers', and not shown to the model again."""

    type: str
    text: str | None = None
    id: CallId | None = None
    name: ToolName | None = None
    input: dict[str, Any] | None = None
    tool_use_id: CallId | None = None
    content: "str | list[ContentBlock] | None" = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: Any = None
    source: Any = None
    citations: Any = None
    caller: Any = None
    cache_control: CacheControl | None = None


ContentBlocks = Annotated[list[ContentBlock], Meta(max_length=limits.PARTS)]


class MessageTurn(msgspec.Struct, kw_only=True):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | ContentBlocks


class MessageTool(msgspec.Struct, kw_only=True):
    """A tool; those with another type than "custom" run at Anthropic."""

    name: ToolName
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class MessageToolChoice(msgspec.Struct, kw_only=True):
    """`tool_choice`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessageMetadata(msgspec.Struct, kw_only=True):
    """A label that is kept nowhere."""

    user_id: Annotated[str, Meta(max_length=limits.NAME_CHARS)] | None = None


class CountBody(msgspec.Struct, kw_only=True):
    """What `count_tokens` takes: the parts of a request that are a part of its prompt."""

    messages: Annotated[list[MessageTurn], Meta(min_length=1, max_length=limits.MESSAGES)]
    model: ModelId | None = None
    system: str | ContentBlocks | None = None
    tools: Annotated[list[MessageTool], Meta(max_length=limits.TOOLS)] | None = None
    tool_choice: MessageToolChoice | None = None


class MessagesBody(CountBody, kw_only=True):
    """Supported parameters of messages."""

    max_tokens: Annotated[int, Meta(ge=1)]
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    stop_sequences: Annotated[list[StopText], Meta(max_length=limits.STOPS)] | None = None
    stream: bool | None = None
    metadata: MessageMetadata | None = None
    edgekit: Extension | None = None


NEUTRAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "thinking": ('{"type":"disabled"}',),
        "service_tier": ('"auto"', '"standard_only"'),
        "container": (),
        "mcp_servers": ("[]",),
        "context_management": (),
        "output_config": ("{}",),
        "inference_geo": (),
    }
)
"""Parameters that are not supported, and the JSON values (besides null) that ask for nothing."""

MESSAGES = Form(shape=MessagesBody, neutral=NEUTRAL)
COUNT: Final = Form(shape=CountBody, neutral=NEUTRAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMessage:
    """A checked body. `model` is "" for the active one."""

    model: str
    request: ChatRequest
    stream: bool


def parse_message(raw: bytes, *, lenient: bool = False) -> AskedMessage:
    """What a body asks for, without knowledge of its model. Raises InvalidRequest."""
    body = read(raw, MESSAGES, lenient=lenient)
    tools = _tools(body.tools or ())
    request = ChatRequest(
        messages=_messages(body),
        sampling=sampling_of(AnswerBody(temperature=body.temperature, top_p=body.top_p, top_k=body.top_k)),
        max_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, tools),
        parallel_calls=not (body.tool_choice and body.tool_choice.disable_parallel_tool_use),
        strategy=body.edgekit.strategy if body.edgekit else None,
    )
    return AskedMessage(model=body.model or "", request=request, stream=bool(body.stream))


def parse_count(raw: bytes, *, lenient: bool = False) -> AskedMessage:
    """As `parse_message`, of a body that asks for nothing but its prompt's length."""
    body = read(raw, COUNT, lenient=lenient)
    tools = _tools(body.tools or ())
    request = ChatRequest(messages=_messages(body), tools=tools, tool_choice=_tool_choice(body.tool_choice, tools))
    return AskedMessage(model=body.model or "", request=request, stream=False)


def _tools(items: Sequence[MessageTool]) -> tuple[Tool, ...]:
    for index, item in enumerate(items):
        if item.type not in (None, "custom") or item.input_schema is None:
            raise InvalidRequest(
                "Only tools with an input_schema of their own are supported; others run at Anthropic.",
                param=f"tools[{index}].type",
            )
    return tools_of(
        [
            ToolBody(
                type="function",
                function=Function(name=item.name, description=item.description, parameters=item.input_schema),
            )
            for item in items
        ]
    )


def _tool_choice(wanted: MessageToolChoice | None, tools: Sequence[Tool]) -> ToolChoice:
    if wanted is None:
        return ToolChoice()
    if wanted.type == "tool":
        named = None if wanted.name is None else Named(name=wanted.name)
        return tool_choice_of(NamedChoice(type="function", function=named), tools)
    return tool_choice_of("required" if wanted.type == "any" else wanted.type, tools)


# --- the conversation -----------------------------------------------------------------------


def _messages(body: CountBody) -> tuple[Message, ...]:
    found: list[Message] = []
    if body.system:
        found.append(Message(role="system", content=_text(body.system, "system")))
    calls: dict[str, str] = {}
    for index, turn in enumerate(body.messages):
        where = f"messages[{index}].content"
        if isinstance(turn.content, str):
            found.append(Message(role=turn.role, content=turn.content))
        elif turn.role == "assistant":
            found.append(_answer(turn.content, where, calls))
        else:
            found += _asked(turn.role, turn.content, where, calls)
    if found[-1].role == "assistant":
        raise InvalidRequest("End with a turn of the user: answers cannot be begun here.", param="messages")
    return tuple(found)


def _answer(blocks: Sequence[ContentBlock], where: str, calls: dict[str, str]) -> Message:
    """An assistant's turn; what it asked of tools is noted in `calls`, names by id."""
    texts, asked = [], []
    for index, block in enumerate(blocks):
        here = f"{where}[{index}]"
        if block.type == "tool_use":
            if block.id is None or block.name is None:
                raise InvalidRequest("A tool_use block needs id and name.", param=here)
            calls[block.id] = block.name
            arguments = msgspec.json.encode(block.input or {}).decode()
            asked.append(ToolCall(id=block.id, name=block.name, arguments=arguments))
        elif block.type not in ("thinking", "redacted_thinking"):
            texts.append(_text([block], where, first=index))
    return Message(role="assistant", content="\n".join(texts), tool_calls=tuple(asked))


def _asked(role: str, blocks: Sequence[ContentBlock], where: str, calls: Mapping[str, str]) -> list[Message]:
    """A user's turn: what tools gave, one message each, and then what the user says."""
    results, texts = [], []
    for index, block in enumerate(blocks):
        here = f"{where}[{index}]"
        if block.type != "tool_result":
            texts.append(_text([block], where, first=index))
            continue
        if block.tool_use_id is None or block.tool_use_id not in calls:
            raise InvalidRequest("A tool_result answers an earlier tool_use by its id.", param=f"{here}.tool_use_id")
        content = _text(block.content or "", f"{here}.content")
        name = calls[block.tool_use_id]
        results.append(Message(role="tool", content=content, tool_call_id=block.tool_use_id, name=name))
    if texts or not results:
        results.append(Message(role=role, content="\n".join(texts)))
    return results


def _text(content: str | Sequence[ContentBlock], where: str, *, first: int = 0) -> str:
    if isinstance(content, str):
        return content
    for index, block in enumerate(content, start=first):
        if block.type != "text" or block.text is None:
            raise InvalidRequest(f"{TEXT_ONLY}, no block of the type {block.type[:100]!r}.", param=f"{where}[{index}]")
    return "\n".join(block.text or "" for block in content)
