"""POST /v1/completions: the body, and the prompts that it means."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from msgspec import Meta

from device_agent.engine.records import Grammar, Sampling
from device_agent.http.schema import limits
from device_agent.http.schema.chat import ELSEWHERE
from device_agent.http.schema.form import LABELS, Form, read
from device_agent.http.schema.formats import GrammarBody
from device_agent.http.schema.sampling import AnswerBody, TokenId, sampling_of, stops_of, wants_usage
from edgekit.errors import InvalidRequest


class CompletionBody(AnswerBody, kw_only=True):
    """Supported parameters of plain completions: text, texts, ids or lists of ids."""

    prompt: str | list[str | TokenId | list[TokenId]]
    max_tokens: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    grammar: GrammarBody | None = None


NEUTRAL: Mapping[str, tuple[str, ...]] = MappingProxyType({"best_of": ("1",), "suffix": ('""',)})
"""Parameters that are not supported, and the JSON values (besides null) that ask for nothing."""

COMPLETIONS = Form(
    shape=CompletionBody,
    neutral=NEUTRAL,
    labels=LABELS,
    elsewhere=MappingProxyType(
        {name: hint for name, hint in ELSEWHERE.items() if "response_format" not in hint and "edgekit" not in hint}
        | {
            "messages": "Completions take a prompt; /v1/chat/completions takes messages.",
            "max_completion_tokens": "Its name here is max_tokens.",
        }
    ),
)

Prompt = str | tuple[int, ...]
"""Plain text, or ids that the client has already cut it into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedCompletion:
    """A checked body. Choice `prompt * choices + i` is the i-th answer to a prompt, as OpenAI numbers them."""

    model: str
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    grammar: Grammar | None
    choices: int
    echo: bool
    top_logprobs: int | None
    stream: bool
    include_usage: bool


def parse_completion(raw: bytes, *, lenient: bool = False) -> AskedCompletion:
    """What a body asks for, without knowledge of its model. Raises InvalidRequest."""
    body = read(raw, COMPLETIONS, lenient=lenient)
    prompts, choices = _prompts(body.prompt), body.n or 1
    if len(prompts) * choices > limits.PROMPTS_AND_CHOICES:
        raise InvalidRequest(
            f"{len(prompts)} prompts with {choices} choices each are more than {limits.PROMPTS_AND_CHOICES}: "
            "send several requests.",
            param="prompt",
        )
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("max_tokens 0 is possible only with echo: there would be no answer.", param="max_tokens")
    return AskedCompletion(
        model=body.model or "",
        prompts=prompts,
        sampling=sampling_of(body),
        max_tokens=body.max_tokens,
        stop=stops_of(body),
        grammar=Grammar(body.grammar.type, body.grammar.value) if body.grammar else None,
        choices=choices,
        echo=bool(body.echo),
        top_logprobs=body.logprobs,
        stream=bool(body.stream),
        include_usage=wants_usage(body),
    )


def _prompts(given: str | list[str | int | list[int]]) -> tuple[Prompt, ...]:
    """One prompt (text, or a list of ids) or several (a list of either kind)."""
    if isinstance(given, str):
        return (given,)
    if not given:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    ids = tuple(item for item in given if isinstance(item, int))
    if len(ids) == len(given):
        return (ids,)
    if ids:
        raise InvalidRequest("prompt: either one list of token ids, or a list of prompts.", param="prompt")
    return tuple(item if isinstance(item, str) else tuple(item) for item in given if not isinstance(item, int))
