"""POST /v1/chat/completions: the body, and the ChatRequest that it means."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta

from device_agent.conversation.records import ChatRequest
from device_agent.http.schema import limits
from device_agent.http.schema.form import LABELS, Form, read
from device_agent.http.schema.formats import GrammarBody, ResponseFormat, grammar_of
from device_agent.http.schema.sampling import AnswerBody, sampling_of, stops_of, wants_usage
from device_agent.http.schema.tools import NamedChoice, ToolBody, tool_choice_of, tools_of
from device_agent.http.schema.turns import Turn, messages_of
from edgekit.errors import InvalidRequest


class Extension(msgspec.Struct, kw_only=True):
    """`edgekit`: what only this agent has. `strategy` is a way of reasoning, as `model@strategy` is."""

    strategy: Annotated[str, Meta(min_length=1, max_length=limits.SPEAKER_CHARS)] | None = None


TokenLimit = Annotated[int, Meta(ge=1, lt=1 << 31)]


class ChatBody(AnswerBody, kw_only=True):
    """Supported parameters of chat."""

    messages: Annotated[list[Turn], Meta(min_length=1, max_length=limits.MESSAGES)]
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    grammar: GrammarBody | None = None
    tools: Annotated[list[ToolBody], Meta(max_length=limits.TOOLS)] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    edgekit: Extension | None = None


NEUTRAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "store": ("false",),
        "functions": ("[]",),
        "function_call": ('"none"', '"auto"'),
        "modalities": ('["text"]',),
        "service_tier": ('"auto"', '"default"'),
        "verbosity": ('"medium"',),
        "reasoning_effort": ('"none"',),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "prompt_cache_retention": (),
    }
)
"""Chat parameters that are not supported, and the JSON values (besides null) that ask for nothing."""

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "guided_regex": 'Send it as grammar: {"type": "regex", "value": ...}.',
        "guided_grammar": 'Send it as grammar: {"type": "lark", "value": ...}.',
        "guided_json": "Send it as response_format.json_schema.schema.",
        "json_schema": "Send it as response_format.json_schema.schema.",
        "guided_choice": 'Send it as grammar: {"type": "regex", "value": "one|another"}.',
        "strategy": 'Send it as edgekit: {"strategy": ...}.',
        "reasoning": 'Send it as edgekit: {"strategy": ...}.',
        "system": "Send it as the first of messages, with the role 'system'.",
        "prompt": "Chat takes messages; /v1/completions takes a prompt.",
        "repeat_penalty": "Its name here is repetition_penalty.",
        "n_predict": "Its name here is max_tokens.",
    }
)
"""What other servers call it."""

CHAT = Form(shape=ChatBody, neutral=NEUTRAL, labels=LABELS, elsewhere=ELSEWHERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedChat:
    """A checked body: which model, what of it, and how the answer is sent. `model` is "" for the active one."""

    model: str
    request: ChatRequest
    stream: bool
    include_usage: bool


def parse_chat(raw: bytes, *, lenient: bool = False) -> AskedChat:
    """What a body asks for, without knowledge of its model. Raises InvalidRequest."""
    body = read(raw, CHAT, lenient=lenient)
    tools = tools_of(body.tools or ())
    return AskedChat(
        model=body.model or "",
        request=ChatRequest(
            messages=messages_of(body.messages),
            sampling=sampling_of(body),
            max_tokens=_max_tokens(body),
            stop=stops_of(body),
            tools=tools,
            tool_choice=tool_choice_of(body.tool_choice, tools),
            parallel_calls=body.parallel_tool_calls is not False,
            grammar=grammar_of(body.response_format, body.grammar),
            choices=body.n or 1,
            top_logprobs=_top_logprobs(body),
            strategy=body.edgekit.strategy if body.edgekit else None,
        ),
        stream=bool(body.stream),
        include_usage=wants_usage(body),
    )


def _top_logprobs(body: ChatBody) -> int | None:
    """As in Generation. 0 without `logprobs` asks for nothing; more would be ignored."""
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
    return None


def _max_tokens(body: ChatBody) -> int | None:
    """`max_completion_tokens` is OpenAI's newer name for `max_tokens`: either, or both if they agree."""
    both = {"max_tokens": body.max_tokens, "max_completion_tokens": body.max_completion_tokens}
    given = {name: value for name, value in both.items() if value is not None}
    if len(set(given.values())) > 1:
        raise InvalidRequest("max_tokens and max_completion_tokens contradict each other.", param="max_tokens")
    return next(iter(given.values()), None)
