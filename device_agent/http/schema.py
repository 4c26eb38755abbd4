"""Request bodies to records. Pure: bytes and facts in, a record or InvalidRequest out.

Strict on purpose. A parameter that would be ignored is refused by name, because a program that asks for something
and silently gets something else is the worse failure. Values that ask for nothing special are accepted for
parameters that are not supported (`NEUTRAL`), since clients send them by default.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from device_agent.engine.records import Generation, Sampling
from edgekit.chat import Message
from edgekit.errors import InvalidRequest, UnknownModel

Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenLimit = Annotated[int, Meta(ge=1)]
StopText = Annotated[str, Meta(min_length=1, max_length=500)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a request is checked against: the model's id, its context in tokens and the size of its vocabulary."""

    name: str
    context_tokens: int
    vocab: int


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A prompt that the client has already cut into this model's tokens."""

    ids: tuple[int, ...]


Prompt = tuple[Message, ...] | str | TokenIds
"""A conversation, plain text, or token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked request."""

    prompt: Prompt
    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool

    def generation(self, prompt: tuple[int, ...]) -> Generation:
        """What the engine is asked for, once the prompt's ids are known."""
        return Generation(prompt=prompt, sampling=self.sampling, max_tokens=self.max_tokens, stop=self.stop)


# --- the shapes on the wire -----------------------------------------------------------------


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    """The last five are what SDKs echo back from our own answers; they must say nothing."""

    role: str
    content: str | list[_Part] | None = None
    name: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    annotations: Any = None
    audio: Any = None


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Body(msgspec.Struct, kw_only=True):
    """Parameters of both routes; null everywhere means the default."""

    model: str
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    logit_bias: Annotated[dict[Annotated[int, Meta(ge=0)], Bias], Meta(max_length=1024)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _ChatBody(_Body, kw_only=True):
    messages: Annotated[list[_Turn], Meta(min_length=1)]


class _CompletionBody(_Body, kw_only=True):
    prompt: str | list[Any]


# --- what is accepted and does nothing ------------------------------------------------------

_EMPTY = ("[]",)
NEUTRAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "n": ("1",),
        "store": ("false",),
        "logprobs": ("false",),
        "top_logprobs": ("0",),
        "response_format": ('{"type":"text"}',),
        "tools": _EMPTY,
        "functions": _EMPTY,
        "tool_choice": ('"none"', '"auto"'),
        "function_call": ('"none"', '"auto"'),
        "parallel_tool_calls": ("true", "false"),
        "modalities": ('["text"]',),
        "service_tier": ('"auto"', '"default"'),
        "verbosity": ('"medium"',),
        "audio": (),
        "prediction": (),
        "reasoning_effort": ('"none"',),
        "web_search_options": (),
    }
)
"""Chat parameters that are not supported, and the JSON values (besides null) that ask for nothing."""

NEUTRAL_COMPLETION: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"n": ("1",), "best_of": ("1",), "echo": ("false",), "suffix": ('""',), "logprobs": ()}
)
"""The same for plain completions, where `logprobs` is a number."""

LABELS: Mapping[str, type] = MappingProxyType(
    {"user": str, "safety_identifier": str, "prompt_cache_key": str, "metadata": dict}
)
"""Labels for the provider's books: any value of the type is accepted, and kept nowhere."""

ROLES: Mapping[str, str] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)

_SILENT_IN_TURN = ("name", "refusal", "tool_calls", "function_call", "annotations", "audio")


# --- reading --------------------------------------------------------------------------------


def parse_chat(raw: bytes, facts: ModelFacts) -> Request:
    """Body of POST /v1/chat/completions. Raises InvalidRequest or UnknownModel."""
    body = _decode(raw, _ChatBody, NEUTRAL)
    _check_model(body.model, facts)
    messages = tuple(_message(index, turn) for index, turn in enumerate(body.messages))
    return _request(body, messages, facts)


def parse_completion(raw: bytes, facts: ModelFacts) -> Request:
    """Body of POST /v1/completions. Raises InvalidRequest or UnknownModel."""
    body = _decode(raw, _CompletionBody, NEUTRAL_COMPLETION)
    _check_model(body.model, facts)
    return _request(body, _prompt(body.prompt, facts), facts)


AnyBody = TypeVar("AnyBody", bound=_Body)


def _decode(raw: bytes, shape: type[AnyBody], neutral: Mapping[str, tuple[str, ...]]) -> AnyBody:
    """Names first, then values: an unknown name is a better answer than a wrong value behind it."""
    try:
        raw.decode("utf-8")  # msgspec does not look into strings that it skips
        given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        _check_names(given, shape, neutral)
        return msgspec.json.decode(raw, type=shape)
    except UnicodeDecodeError as error:
        raise InvalidRequest("The request body is not valid UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The request body is nested too deeply.") from error
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error


def _check_names(given: Mapping[str, msgspec.Raw], shape: type[_Body], neutral: Mapping[str, tuple[str, ...]]) -> None:
    for name, value in given.items():
        if name in shape.__struct_fields__:
            continue
        if name in neutral:
            _check_neutral(name, value, neutral[name])
        elif name in LABELS:
            if not isinstance(msgspec.json.decode(value), LABELS[name] | None):
                raise InvalidRequest(f"{name}: expected {LABELS[name].__name__} or null.", param=name)
        else:
            known = [*shape.__struct_fields__, *neutral, *LABELS]
            near = difflib.get_close_matches(name[:100], known, n=1)
            question = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidRequest(f"Unknown parameter: {name[:100]!r}.{question}", param=name[:100])


def _check_neutral(name: str, value: msgspec.Raw, accepted: Sequence[str]) -> None:
    # Decoded and encoded again, so that spacing does not matter; comparing values would take 1 for true.
    if msgspec.json.encode(msgspec.json.decode(value)).decode() not in {*accepted, "null"}:
        choices = f": leave it out, or send {' or '.join(accepted)}" if accepted else ""
        raise InvalidRequest(f"{name!r} is not supported by this agent{choices}.", param=name)


def _check_model(model: str, facts: ModelFacts) -> None:
    if model != facts.name:
        raise UnknownModel(model[:200], facts.name)


_WHERE = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>.*?)(?:\[\.\.\.\])?`$")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(?P<name>.*?)`")


def _explained(problem: str) -> InvalidRequest:
    """msgspec's sentence with its JSON path taken out and given as the parameter's name."""
    where, field = _WHERE.search(problem), _FIELD.search(problem)
    names = [where["path"] if where else "", field["name"] if field else ""]
    param = ".".join(name for name in names if name) or None
    sentence = _WHERE.sub("", problem)
    return InvalidRequest(f"{param}: {sentence}." if param else f"The request body: {sentence}.", param=param)


def _message(index: int, turn: _Turn) -> Message:
    where = f"messages[{index}]"
    for name in _SILENT_IN_TURN:
        if getattr(turn, name):
            raise InvalidRequest(f"{where}.{name} is not supported by this agent.", param=f"{where}.{name}")
    if turn.role not in ROLES:
        known = ", ".join(ROLES)
        raise InvalidRequest(f"The role {turn.role[:100]!r} is not one of: {known}.", param=f"{where}.role")
    if turn.content is None and turn.role != "assistant":
        raise InvalidRequest(f"A message of the role {turn.role!r} needs content.", param=f"{where}.content")
    return Message(role=ROLES[turn.role], content=_text(turn.content, f"{where}.content"))


def _text(content: str | list[_Part] | None, where: str) -> str:
    """Text of a message; several parts are joined by line breaks, as llama.cpp and vLLM do."""
    if content is None or isinstance(content, str):
        return content or ""
    for index, part in enumerate(content):
        if part.type != "text" or part.text is None:
            raise InvalidRequest(
                f"Only parts of the type 'text' are supported, not {part.type[:100]!r}.", param=f"{where}[{index}]"
            )
    return "\n".join(part.text or "" for part in content)


def _prompt(prompt: str | list[Any], facts: ModelFacts) -> str | TokenIds:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if any(isinstance(item, str | list) for item in prompt):
        raise InvalidRequest("One prompt per request: send several requests for several prompts.", param="prompt")
    # bool is an int to Python, not to JSON
    if not all(type(item) is int and 0 <= item < facts.vocab for item in prompt):
        raise InvalidRequest(
            f"prompt: expected text, or token ids from 0 to {facts.vocab - 1} of this model.", param="prompt"
        )
    return TokenIds(tuple(prompt))


def _request(body: _Body, prompt: Prompt, facts: ModelFacts) -> Request:
    options = body.stream_options
    return Request(
        prompt=prompt,
        sampling=_sampling(body, facts),
        max_tokens=_max_tokens(body, facts),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        stream=bool(body.stream),
        include_usage=bool(options and options.include_usage),
    )


def _max_tokens(body: _Body, facts: ModelFacts) -> int | None:
    """`max_completion_tokens` is OpenAI's newer name for `max_tokens`: either, or both if they agree."""
    both = {"max_tokens": body.max_tokens, "max_completion_tokens": body.max_completion_tokens}
    given = {name: value for name, value in both.items() if value is not None}
    if len(set(given.values())) > 1:
        raise InvalidRequest("max_tokens and max_completion_tokens contradict each other.", param="max_tokens")
    for name, value in given.items():
        if value > facts.context_tokens:
            raise InvalidRequest(
                f"{name} is {value}, but this model's context holds {facts.context_tokens} tokens.", param=name
            )
        return value
    return None


def _sampling(body: _Body, facts: ModelFacts) -> Sampling:
    bias = body.logit_bias or {}
    if bias and max(bias) >= facts.vocab:
        raise InvalidRequest(f"logit_bias: this model's token ids go from 0 to {facts.vocab - 1}.", param="logit_bias")
    default = Sampling()
    return Sampling(
        temperature=_or(body.temperature, default.temperature),
        top_k=_or(body.top_k, default.top_k),
        top_p=_or(body.top_p, default.top_p),
        min_p=_or(body.min_p, default.min_p),
        repetition_penalty=_or(body.repetition_penalty, default.repetition_penalty),
        presence_penalty=_or(body.presence_penalty, default.presence_penalty),
        frequency_penalty=_or(body.frequency_penalty, default.frequency_penalty),
        seed=body.seed,
        logit_bias=MappingProxyType(bias),
    )


Number = TypeVar("Number", int, float)


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value
