"""POST /v1/responses: the body, and the ChatRequest that it means (OpenAI API reference, "Responses").

Stateless: a client sends the whole conversation each time, our own items among it as it got them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from device_agent.conversation.records import ChatRequest, ToolChoice
from device_agent.engine.records import Grammar
from device_agent.http.schema import limits
from device_agent.http.schema.chat import Extension
from device_agent.http.schema.form import LABELS, Form, read
from device_agent.http.schema.formats import GrammarBody, JsonSchema, ResponseFormat, grammar_of
from device_agent.http.schema.sampling import AnswerBody, ModelId, sampling_of
from device_agent.http.schema.tools import Function, Named, NamedChoice, ToolBody, ToolName, tool_choice_of, tools_of
from device_agent.http.schema.turns import ROLES, TEXT_ONLY, CallId, Speaker
from edgekit.chat import Message, Tool, ToolCall
from edgekit.errors import InvalidRequest

TEXT_PARTS = ("input_text", "output_text", "text")


class InputPart(msgspec.Struct, kw_only=True):
    """A part of an item. The last two are what our own answers have; other types are known to be refused in words."""

    type: str
    text: str | None = None
    annotations: Any = None
    logprobs: Any = None
    image_url: Any = None
    file_id: Any = None
    detail: Any = None


InputParts = Annotated[list[InputPart], Meta(max_length=limits.PARTS)]


class InputItem(msgspec.Struct, kw_only=True):
    """One item of `input`: a message, a call, what a tool gave, or reasoning, which is not shown to the model again."""

    type: str = "message"
    role: str | None = None
    content: str | InputParts | None = None
    call_id: CallId | None = None
    name: Speaker | None = None
    arguments: str | None = None
    output: str | InputParts | None = None
    id: str | None = None
    status: str | None = None
    summary: Any = None
    encrypted_content: Any = None
    phase: Any = None


class ResponseTool(msgspec.Struct, kw_only=True):
    """A tool: here the function's fields stand beside the type."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedResponseTool(msgspec.Struct, kw_only=True):
    """`tool_choice` with a name."""

    type: str
    name: str | None = None


class TextFormat(msgspec.Struct, kw_only=True):
    """`text.format`: here the schema's fields stand beside the type."""

    type: str
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, kw_only=True):
    """`text`."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(msgspec.Struct, kw_only=True):
    """Obfuscation is padding, of which there is none."""

    include_obfuscation: bool | None = None


class ResponsesBody(msgspec.Struct, kw_only=True):
    """Supported parameters of responses."""

    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=limits.MESSAGES)]
    model: ModelId | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    text: TextOptions | None = None
    grammar: GrammarBody | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=limits.TOOLS)] | None = None
    tool_choice: str | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    include: Annotated[list[str], Meta(max_length=16)] | None = None
    edgekit: Extension | None = None


NEUTRAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "store": ("false",),
        "background": ("false",),
        "truncation": ('"disabled"',),
        "service_tier": ('"auto"', '"default"'),
        "reasoning": ("{}", '{"effort":"none"}'),
        "previous_response_id": (),
        "conversation": (),
        "prompt": (),
        "max_tool_calls": (),
        "prompt_cache_retention": (),
        "context_management": (),
    }
)
"""Parameters that are not supported, and the JSON values (besides null) that ask for nothing."""

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "messages": "Responses take `input`; /v1/chat/completions takes messages.",
        "max_tokens": "Its name here is max_output_tokens.",
        "response_format": "Send it as text.format.",
        "stop": "Responses have no stop strings; /v1/chat/completions has.",
    }
)
LOGPROBS = "message.output_text.logprobs"
INCLUDED = (LOGPROBS, "reasoning.encrypted_content")
"""What `include` may ask for; reasoning is never encrypted here, it is sent as it is."""

RESPONSES = Form(shape=ResponsesBody, neutral=NEUTRAL, labels=LABELS, elsewhere=ELSEWHERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedResponse:
    """A checked body. `model` is "" for the active one; `asked` are the parameters that the response repeats."""

    model: str
    request: ChatRequest
    stream: bool
    asked: Mapping[str, Any] = field(default_factory=dict)


_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "response_format.json_schema": "text.format",
        "response_format": "text.format",
        "max_tokens": "max_output_tokens",
    }
)
"""Chat's parameters whose name is another one here, the longest first."""


@contextmanager
def own_names() -> Iterator[None]:
    """Refusals inside of the block name parameters as a client of responses knows them."""
    try:
        yield
    except InvalidRequest as refused:
        for theirs, ours in _NAMES.items():
            if refused.param and (refused.param == theirs or refused.param.startswith(f"{theirs}.")):
                sentence = refused.problem.replace(theirs, ours)
                raise InvalidRequest(sentence, param=ours + refused.param.removeprefix(theirs)) from refused
        raise


def parse_response(raw: bytes, *, lenient: bool = False) -> AskedResponse:
    """What a body asks for, without knowledge of its model. Raises InvalidRequest."""
    body = read(raw, RESPONSES, lenient=lenient)
    tools = _tools(body.tools or ())
    request = ChatRequest(
        messages=_messages(body),
        sampling=sampling_of(
            AnswerBody(
                temperature=body.temperature, top_p=body.top_p, top_k=body.top_k, min_p=body.min_p, seed=body.seed
            )
        ),
        max_tokens=body.max_output_tokens,
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, tools),
        parallel_calls=body.parallel_tool_calls is not False,
        grammar=_grammar(body),
        top_logprobs=_top_logprobs(body),
        strategy=body.edgekit.strategy if body.edgekit else None,
    )
    return AskedResponse(model=body.model or "", request=request, stream=bool(body.stream), asked=_repeated(raw, body))


def _repeated(raw: bytes, body: ResponsesBody) -> dict[str, Any]:
    """What OpenAI's response says of its request."""
    given = msgspec.json.decode(raw, type=dict[str, Any])
    text = given.get("text") or {}
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "tool_choice": given.get("tool_choice") or "auto",
        "tools": [{"strict": True, "description": None, "parameters": {}} | tool for tool in given.get("tools") or ()],
        "text": {"format": text.get("format") or {"type": "text"}},
        "top_logprobs": body.top_logprobs or 0,
        "reasoning": {"effort": None, "summary": None},
        "metadata": given.get("metadata") or {},
    }


def _top_logprobs(body: ResponsesBody) -> int | None:
    for index, name in enumerate(body.include or ()):
        if name not in INCLUDED:
            raise InvalidRequest(
                f"include: {name[:100]!r} is not one of: {', '.join(INCLUDED)}.", param=f"include[{index}]"
            )
    if LOGPROBS in (body.include or ()):
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise InvalidRequest(f"top_logprobs needs include: [{LOGPROBS!r}].", param="top_logprobs")
    return None


def _grammar(body: ResponsesBody) -> Grammar | None:
    with own_names():
        return grammar_of(_response_format(body.text), body.grammar)


def _response_format(text: TextOptions | None) -> ResponseFormat | None:
    if text is None or text.format is None:
        return None
    wanted = text.format
    if wanted.type != "json_schema":
        return ResponseFormat(type=wanted.type)
    return ResponseFormat(type="json_schema", json_schema=JsonSchema(name=wanted.name, schema=wanted.schema))


def _tools(items: Sequence[ResponseTool]) -> tuple[Tool, ...]:
    return tools_of([_tool(item) for item in items])


def _tool(item: ResponseTool) -> ToolBody:
    function = None
    if item.name is not None:
        function = Function(name=item.name, description=item.description, parameters=item.parameters)
    return ToolBody(type=item.type, function=function)


def _tool_choice(wanted: str | NamedResponseTool | None, tools: Sequence[Tool]) -> ToolChoice:
    if isinstance(wanted, NamedResponseTool):
        named = None if wanted.name is None else Named(name=wanted.name)
        return tool_choice_of(NamedChoice(type=wanted.type, function=named), tools)
    return tool_choice_of(wanted, tools)


# --- the conversation -----------------------------------------------------------------------


def _messages(body: ResponsesBody) -> tuple[Message, ...]:
    found = [Message(role="system", content=body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return (*found, Message(role="user", content=body.input))
    calls: dict[str, str] = {}
    for index, item in enumerate(body.input):
        where = f"input[{index}]"
        if item.type == "message":
            found.append(_said(item, where))
        elif item.type == "function_call":
            call = _call(item, where)
            calls[call.id] = call.name
            _add_call(found, call)
        elif item.type == "function_call_output":
            found.append(_result(item, where, calls))
        elif item.type != "reasoning":
            raise InvalidRequest(f"An item of the type {item.type[:100]!r} is not supported.", param=f"{where}.type")
    return tuple(found)


def _said(item: InputItem, where: str) -> Message:
    if item.role is None or item.role not in ROLES or item.role == "tool":
        known = ", ".join(role for role in ROLES if role != "tool")
        raise InvalidRequest(f"The role {str(item.role)[:100]!r} is not one of: {known}.", param=f"{where}.role")
    return Message(role=ROLES[item.role], content=_text(item.content, f"{where}.content"))


def _call(item: InputItem, where: str) -> ToolCall:
    if item.call_id is None or item.name is None:
        raise InvalidRequest("A function_call needs call_id and name.", param=where)
    arguments = (item.arguments or "").strip() or "{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            "The arguments of a call are the text of a JSON object.", param=f"{where}.arguments"
        ) from error
    return ToolCall(id=item.call_id, name=item.name, arguments=arguments)


def _add_call(found: list[Message], call: ToolCall) -> None:
    """To the assistant's turn that is being told, or in one of its own."""
    if found and found[-1].role == "assistant":
        found[-1] = msgspec.structs.replace(found[-1], tool_calls=(*found[-1].tool_calls, call))
    else:
        found.append(Message(role="assistant", content="", tool_calls=(call,)))


def _result(item: InputItem, where: str, calls: Mapping[str, str]) -> Message:
    if item.call_id is None or item.call_id not in calls:
        raise InvalidRequest(
            "A function_call_output answers an earlier function_call by its call_id.", param=f"{where}.call_id"
        )
    content = _text(item.output, f"{where}.output")
    return Message(role="tool", content=content, tool_call_id=item.call_id, name=calls[item.call_id])


def _text(content: str | Sequence[InputPart] | None, where: str) -> str:
    if content is None:
        raise InvalidRequest("This item needs content.", param=where)
    if isinstance(content, str):
        return content
    for index, part in enumerate(content):
        if part.type not in TEXT_PARTS or part.text is None:
            raise InvalidRequest(f"{TEXT_ONLY}, no part of the type {part.type[:100]!r}.", param=f"{where}[{index}]")
    return "\n".join(part.text or "" for part in content)
