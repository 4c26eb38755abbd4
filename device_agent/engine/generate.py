"""Generation: prompt ids in, tokens out until something ends it; and the text of an answer on top.

`generate` knows ids alone. `answer` reads it through the detokeniser and the stop strings, and
counts. Both are generators: they compute when asked for the next item, and stop when closed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.engine.records import FinishReason, Generation, Piece, Timings
from device_agent.engine.sampling import History, Logits, Sampler
from device_agent.engine.text import Detokenizer, StopStrings, TextDecoder
from edgekit.errors import ContextOverflow, InvalidRequest

CHUNK_TOKENS = 256
"""Prompt tokens per step: long enough for full speed, short enough that a client who left is noticed."""


class StepDecoder(Protocol):
    """A model with its cache, as generation sees it."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def context_tokens(self) -> int:
        """Most tokens that the cache can hold."""

    def step(self, ids: Sequence[int]) -> Logits:
        """Append `ids` (at least one); logits [vocab] of what follows the last of them, valid until the next step."""

    def truncate(self, length: int) -> None:
        """Forget the cached tokens after the first `length`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends an answer: any id of `eos`, or `max_tokens` (None means up to the context's end)."""

    eos: frozenset[int]
    max_tokens: int | None = None
    chunk_tokens: int = CHUNK_TOKENS


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer; the last has `finish`. `id` is None only in the item that says "cancelled"."""

    id: int | None
    finish: FinishReason | None = None


def room_for(prompt_tokens: int, *, max_tokens: int | None, context_tokens: int) -> int:
    """How many tokens the answer may have, at least 1: prompt and answer together fill the context at most.

    Raises InvalidRequest (empty prompt, or `max_tokens` below 1) or ContextOverflow (no room for one token).
    """
    if prompt_tokens < 1:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequest(f"max_tokens is {max_tokens}, and must be at least 1.", param="max_tokens")
    room = context_tokens - prompt_tokens
    if room < 1:
        raise ContextOverflow(prompt_tokens, context_tokens)
    return room if max_tokens is None else min(room, max_tokens)


def generate(
    decoder: StepDecoder,
    prompt: Sequence[int],
    sampler: Sampler,
    *,
    limits: Limits,
    cancelled: Callable[[], bool],
) -> Iterator[Token]:
    """Yield tokens up to and including the one with `finish`; the cache is emptied first.

    A stop token is yielded, with finish "stop". `cancelled` is asked before every step of the model,
    and no step is made whose logits nobody would read. Raises on the first item what `room_for` raises,
    and at any item what the decoder or the sampler raises.
    """
    room = room_for(len(prompt), max_tokens=limits.max_tokens, context_tokens=decoder.context_tokens)
    decoder.truncate(0)
    history = History(prompt)
    size = limits.chunk_tokens
    steps = [prompt[start : start + size] for start in range(0, len(prompt), size)]
    for made in range(1, room + 1):
        logits = _advance(decoder, steps, cancelled)
        if logits is None:
            yield Token(None, "cancelled")
            return
        token_id = sampler(logits, history)
        history.add(token_id)
        finish: FinishReason | None = "stop" if token_id in limits.eos else "length" if made == room else None
        yield Token(token_id, finish)
        if finish:
            return
        steps = [(token_id,)]


def _advance(decoder: StepDecoder, steps: Sequence[Sequence[int]], cancelled: Callable[[], bool]) -> Logits | None:
    """Logits after the last step, or None if it was cancelled before."""
    logits = None
    for ids in steps:
        if cancelled():
            return None
        logits = decoder.step(ids)
    return logits


def answer(
    decoder: StepDecoder,
    generation: Generation,
    sampler: Sampler,
    *,
    tokenizer: TextDecoder,
    eos: frozenset[int],
    cancelled: Callable[[], bool],
    chunk_tokens: int = CHUNK_TOKENS,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Piece]:
    """Yield the answer's pieces; the last one has `finish` and `timings`.

    A piece comes when there is text to show; its tokens are those read since the piece before. A stop
    string ends the answer with "stop", and the tokens that spelt it are counted. Raises as `generate` does,
    and InvalidRequest for an empty stop string.
    """
    limits = Limits(eos=eos, max_tokens=generation.max_tokens, chunk_tokens=chunk_tokens)
    meter = _Meter(len(generation.prompt), clock)
    reader = _Reader(tokenizer, generation.stop)
    unsent: list[int] = []
    for token in generate(decoder, generation.prompt, sampler, limits=limits, cancelled=cancelled):
        if token.id is not None:
            meter.count()
            unsent.append(token.id)
        text, finish = reader.read(token)
        if finish:
            yield Piece(text=text, tokens=tuple(unsent), finish=finish, timings=meter.timings())
            return
        if text:
            yield Piece(text=text, tokens=tuple(unsent))
            unsent.clear()


class _Reader:
    """Tokens to text that may be shown, and why the answer ends once both kinds of ending are known."""

    def __init__(self, tokenizer: TextDecoder, stops: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(stops)

    def read(self, token: Token) -> tuple[str, FinishReason | None]:
        ending = token.id is None or token.finish == "stop"  # such a token has no text of its own
        text = "" if token.id is None or ending else self._detokenizer.push(token.id)
        if token.finish:
            text += self._detokenizer.finish()
        text, stopped = self._stops.push(text)
        if stopped:
            return text, "stop"
        if token.finish:
            text += self._stops.finish()
        return text, token.finish


class _Meter:
    """Counts tokens and takes the times of the first and the newest one."""

    def __init__(self, prompt_tokens: int, clock: Callable[[], float]) -> None:
        self._prompt_tokens = prompt_tokens
        self._clock = clock
        self._started = clock()
        self._first = self._last = 0.0
        self._tokens = 0

    def count(self) -> None:
        self._last = self._clock()
        if not self._tokens:
            self._first = self._last
        self._tokens += 1

    def timings(self) -> Timings:
        first = self._first if self._tokens else self._clock()
        return Timings(
            prompt_tokens=self._prompt_tokens,
            prompt_s=first - self._started,
            generated_tokens=self._tokens,
            generate_s=self._last - self._first,
        )
