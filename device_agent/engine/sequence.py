"""One request while it runs: which of its tokens the model has read, and what its answer has become.

A `Run` is fed the logits that some step of the model gave for it, and puts pieces of text into its job's outbox. It
knows neither rows nor other requests, so one step can serve many of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.engine.answers import Job
from device_agent.engine.drafting.verify import verified
from device_agent.engine.records import FinishReason, Piece, Timings
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History
from device_agent.engine.text import Detokenizer, StopStrings, TextDecoder
from edgekit.errors import ContextOverflow, InvalidRequest


@dataclass(frozen=True, slots=True)
class Language:
    """What a model's ids mean: their text, and which of them end an answer."""

    tokenizer: TextDecoder
    eos: frozenset[int]
    vocab: int


class Guesser(Protocol):
    """Guesses how one request's text goes on; `drafting.Guesser` does."""

    def guess(self, ids: Sequence[int], *, room: int, cost: Callable[[int], float]) -> Sequence[int]:
        """At most `room` guesses of what follows `ids`, prompt and answer so far; none where a plain step is faster.

        `cost` is the seconds of a step that reads so many tokens, all of whose logits are wanted.
        """


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


class Run:
    """`ids` are prompt and answer; the first `read` of them are in the model's cache.

    The newest token of an answer is never read before the next one is wanted, so a run that writes has one token left.
    Raises what `room_for` raises, and InvalidRequest for an empty stop string.
    """

    def __init__(
        self,
        job: Job,
        language: Language,
        *,
        context_tokens: int,
        clock: Callable[[], float],
        guesser: Guesser | None = None,
    ) -> None:
        generation = job.generation
        self.job = job
        self.ids = list(generation.prompt)
        self.read = 0
        self.served = 0
        self.cached = 0
        self.drafted = self.accepted = 0
        self.guesser = guesser
        self.finished = False
        self._prompt_tokens = len(self.ids)
        self._room = room_for(len(self.ids), max_tokens=generation.max_tokens, context_tokens=context_tokens)
        self._eos = language.eos
        self._history = History(generation.prompt)
        self._detokenizer = Detokenizer(language.tokenizer)
        self._stops = StopStrings(generation.stop)
        self._unsent: list[int] = []
        self._drafts: Iterator[int] = iter(())
        self._clock = clock
        self._started = clock()
        self._first_s = self._last_s = 0.0

    @property
    def left(self) -> int:
        """Tokens to be read before the next one can be chosen; 1 while it writes."""
        return len(self.ids) - self.read

    @property
    def room(self) -> int:
        """How many tokens the answer may still get."""
        return self._room - self.made

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return len(self.ids) - self._prompt_tokens

    def accept(self, logits: Floats, drafts: Sequence[int] = ()) -> None:
        """Choose what follows the newest token and deliver what text became certain.

        `logits` [len(drafts) + 1, vocab] are those after the newest token and after each of the guesses. Raises
        ServerError if they are not numbers.
        """
        self.drafted += len(drafts)
        self._drafts = iter(drafts)
        verified(logits, drafts, self.job.sampler, self._history, stop=self._take)

    def _take(self, token_id: int) -> bool:
        """One more token of the answer; True if it was the last one."""
        self.accepted += token_id == next(self._drafts, None)
        self.ids.append(token_id)
        self._unsent.append(token_id)
        self._last_s = self._clock()
        if self.made == 1:
            self._first_s = self._last_s
        finish: FinishReason | None = "length" if self.made == self._room else None
        if token_id in self._eos:  # such a token has no text of its own
            self._show("", "stop")
        else:
            self._show(self._detokenizer.push(token_id), finish)
        return self.finished

    def cancel(self) -> None:
        """End it where it is; what was held back is delivered."""
        self._show("", "cancelled")

    def _show(self, text: str, finish: FinishReason | None) -> None:
        if finish:
            text += self._detokenizer.finish()
        text, stopped = self._stops.push(text)
        if stopped:
            finish = "stop"
        elif finish:
            text += self._stops.finish()
        if finish:
            self.finished = True
            self.job.end(Piece(text=text, tokens=tuple(self._unsent), finish=finish, timings=self._timings()))
        elif text:
            self.job.outbox.put(Piece(text=text, tokens=tuple(self._unsent)))
            self._unsent.clear()

    def _timings(self) -> Timings:
        first_s = self._first_s if self.made else self._clock()
        return Timings(
            prompt_tokens=self._prompt_tokens,
            prompt_s=first_s - self._started,
            generated_tokens=self.made,
            generate_s=self._last_s - self._first_s,
            cached_tokens=self.cached,
            drafted=self.drafted,
            accepted=self.accepted,
        )
