"""What crosses the engine's border: one request in, pieces of text out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from edgekit.chat import Message, Tool
from edgekit.manifest import Manifest

FinishReason = Literal["stop", "length", "cancelled"]
PrefillMode = Literal["auto", "int4", "int8"]
PREFILL_MODES: tuple[PrefillMode, ...] = ("auto", "int4", "int8")


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

GrammarKind = Literal["json_schema", "regex", "lark"]
MOST_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like: the text of a JSON schema, of a regular expression, or a Lark grammar.

    Lark is llguidance's dialect, whose `<name>` stands for a special token (llguidance, docs/syntax.md).
    """

    kind: GrammarKind
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One request to the engine: prompt ids and limits. `max_tokens` None means up to the context's end.

    0 tokens are allowed where `prompt_logprobs` asks for those of the prompt. With `top_logprobs` (0 to
    MOST_TOP_LOGPROBS) every token comes with its own, and with those of so many likeliest ones. `shown` are special
    tokens whose text belongs to the answer, such as one that opens a tool call. A grammar ends an answer when nothing
    can follow; a stop string ends it wherever its grammar is. `adapter` is the LoRA adapter to compute with, by name.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = GREEDY
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    shown: frozenset[int] = frozenset()
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithm of a token's probability before any sampling filter, and the likeliest ones in its place.

    `top` is (id, logprob), the likeliest first. The first token of a prompt has no probability: `logprob` is None.
    """

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Counts and wall-clock seconds of one answer, without the time it waited for its turn.

    `cached_tokens` of the prompt were known from earlier requests and not read again. Of `drafted` guesses, `accepted`
    became part of the answer.
    """

    prompt_tokens: int
    prompt_s: float
    generated_tokens: int
    generate_s: float
    cached_tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def read_tokens(self) -> int:
        """Tokens of the prompt that had to be read."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def prompt_per_second(self) -> float:
        """Prompt tokens read a second."""
        return self.read_tokens / self.prompt_s if self.prompt_s else 0.0

    @property
    def generated_per_second(self) -> float:
        """Decoded tokens a second; the first token belongs to the prompt's time."""
        return (self.generated_tokens - 1) / self.generate_s if self.generate_s and self.generated_tokens > 1 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some text that is final, and the tokens read so far that led to it.

    The last piece of an answer has `finish` and `timings` set; its text may be empty. `tokens` are the ids that
    this piece adds to the answer, an ending token included, so that they sum up to the usage. `logprobs` are theirs,
    if they were asked for. `stopped_by` is the stop string that ended the answer. If those of the prompt were asked
    for, the first piece of all has `prompt_logprobs` and nothing else.
    """

    text: str
    tokens: tuple[int, ...] = ()
    finish: FinishReason | None = None
    timings: Timings | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    stopped_by: str | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How the engine shares the machine.

    `threads` None means the physical cores. `queue_limit` requests may wait while `slots` run together (None: as many
    as memory allows). `prefix_bytes` bounds what is kept of ended requests, for prompts that begin as they did (None:
    a share of memory; 0: nothing). While prompts are read, in chunks of `chunk_tokens` at most, a stream's next token
    may take `stall` times as long. The model works for `duty` of the time (0 to 1), and leaves memory when there was
    no work for `idle_unload_s` (None: never). With `guess`, tokens are guessed and verified where that is faster; by
    the smaller model in `draft` too, if there is one.

    `prefill` says what reads prompts: the decoder's own weights ("int4"), INT8 ones that are unpacked from them
    ("int8"), or whatever was measured to be faster here ("auto"). Unpacking needs a folder for it.
    """

    threads: int | None = None
    queue_limit: int = 16
    slots: int | None = None
    prefix_bytes: int | None = None
    chunk_tokens: int = 256
    stall: float = 2.0
    duty: float = 1.0
    idle_unload_s: float | None = None
    guess: bool = True
    draft: Path | None = None
    prefill: PrefillMode = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What the engine is doing, and what it did since it was started.

    `cached_entries` texts of ended requests are kept, in `cached_bytes`. `read_tokens` were read of prompts, and
    `cached_tokens` did not have to be; `written_tokens` were generated; of `drafted` guesses `accepted` were right.
    """

    running: int
    waiting: int
    slots: int
    loaded: bool
    resting: bool
    threads: int
    cached_entries: int
    cached_bytes: int
    read_tokens: int
    cached_tokens: int
    written_tokens: int
    drafted: int
    accepted: int


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

    @property
    def template(self) -> str | None:
        """Source of the chat template, None if the bundle has none: what it writes decides how tools are called."""

    @property
    def adapters(self) -> Sequence[str]:
        """Names of the LoRA adapters that requests may ask for."""

    def chat_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), opening: str = ""
    ) -> tuple[int, ...]:
        """Ids of the rendered chat, and of `opening`: text with which the answer is made to begin.

        Raises TemplateError.
        """

    def rendered(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> str:
        """The rendered chat as text, for people. Raises TemplateError."""

    def text_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; special tokens in it are read as text."""

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 of a token, perhaps a part of a character; a special token's name."""

    def token_id(self, text: str) -> int | None:
        """The id of the token that was added to the vocabulary by this name, if there is one; most such are special."""

    def text_of(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""

    def submit(self, generation: Generation, *, on_piece: Callable[[], None] | None = None) -> Answer:
        """Queue a request; `on_piece` is called, on another thread, after each piece or error that can be read.

        Raises ContextOverflow, InvalidRequest (a grammar that is none, an unknown adapter, too), Overloaded (queue
        full) or ShuttingDown.
        """
