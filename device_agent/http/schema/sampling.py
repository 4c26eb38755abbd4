"""The parameters that chat and completions share, and what of them only the model can check."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from device_agent.engine.records import Sampling
from device_agent.http.schema import limits
from edgekit.errors import InvalidRequest

Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(min_length=1, max_length=limits.STOP_CHARS)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31, title="token id")]
Biases = Annotated[
    dict[TokenId, Bias],
    Meta(max_length=limits.BIASES, extra_json_schema={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}),
]
ModelId = Annotated[str, Meta(max_length=limits.NAME_CHARS)]


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`; obfuscation is padding, of which there is none."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class AnswerBody(msgspec.Struct, kw_only=True):
    """Parameters of both routes; null everywhere means the default, for `model` the active one."""

    model: ModelId | None = None
    n: Annotated[int, Meta(ge=1, le=limits.CHOICES)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    logit_bias: Biases | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=limits.STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a request is checked against once its model is known: context in tokens, size of the vocabulary."""

    context_tokens: int
    vocab: int


def sampling_of(body: AnswerBody) -> Sampling:
    """How tokens are drawn."""
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
        logit_bias=MappingProxyType(body.logit_bias or {}),
    )


def stops_of(body: AnswerBody) -> tuple[str, ...]:
    """Stop strings, one or several."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def wants_usage(body: AnswerBody) -> bool:
    """Whether a stream ends with its usage."""
    return bool(body.stream and body.stream_options and body.stream_options.include_usage)


def check_sampling(sampling: Sampling, max_tokens: int | None, facts: ModelFacts) -> None:
    """Raises InvalidRequest for what this model cannot do: ids that it has not, more tokens than it holds."""
    if sampling.logit_bias and max(sampling.logit_bias) >= facts.vocab:
        raise InvalidRequest(f"logit_bias: this model's token ids go from 0 to {facts.vocab - 1}.", param="logit_bias")
    if max_tokens is not None and max_tokens > facts.context_tokens:
        raise InvalidRequest(
            f"max_tokens is {max_tokens}, but this model's context holds {facts.context_tokens} tokens.",
            param="max_tokens",
        )


Number = TypeVar("Number", int, float)


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value
