"""What crosses the engine's border: one request in, pieces of text out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from edgekit.chat import Message
from edgekit.manifest import Manifest

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. The defaults are OpenAI's; 0 or 1 switches a filter off as noted.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 keep every token. `repetition_penalty` 1
    (multiplicative, Keskar et al. 2019), `presence_penalty` 0 and `frequency_penalty` 0 (additive, OpenAI)
    change nothing. `logit_bias` is added by token id. Without a `seed` every request draws differently.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One request to the engine: prompt ids and limits. `max_tokens` None means up to the context's end."""

    prompt: tuple[int, ...]
    sampling: Sampling = GREEDY
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Counts and wall-clock seconds of one answer, without the time it waited for its turn."""

    prompt_tokens: int
    prompt_s: float
    generated_tokens: int
    generate_s: float

    @property
    def prompt_per_second(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0

    @property
    def generated_per_second(self) -> float:
        """Decoded tokens a second; the first token belongs to the prompt's time."""
        return (self.generated_tokens - 1) / self.generate_s if self.generate_s and self.generated_tokens > 1 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some text that is final, and the tokens read so far that led to it.

    The last piece of an answer has `finish` and `timings` set; its text may be empty. `tokens` are the ids that
    this piece adds to the answer, an ending token included, so that they sum up to the usage.
    """

    text: str
    tokens: tuple[int, ...] = ()
    finish: FinishReason | None = None
    timings: Timings | None = None


class Answer(Protocol):
    """A running generation."""

    def next(self, timeout_s: float | None = None) -> Piece | None:
        """The next piece, or None if none came within `timeout_s`. Raises EdgekitError if generation failed."""

    def __iter__(self) -> Iterator[Piece]:
        """All pieces up to and including the one with `finish`."""

    def cancel(self) -> None:
        """Stop within one token; the last piece then says "cancelled". Harmless when it has ended."""


class ModelService(Protocol):
    """What the HTTP layer sees of a loaded model."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's facts; `manifest.name` is the model's id."""

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together may be this long."""

    @property
    def loaded_at(self) -> int:
        """Unix seconds, for `created` in /v1/models."""

    def chat_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the rendered chat. Raises TemplateError."""

    def text_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; special tokens in it are read as text."""

    def submit(self, generation: Generation) -> Answer:
        """Queue a request. Raises ContextOverflow, InvalidRequest, Overloaded (queue full) or ShuttingDown."""
