"""One request while it runs: which of its tokens the model has read, and what its answer has become.

A `Run` is fed the logits that some step of the model gave for it, and puts pieces of text into its job's outbox. It
knows neither rows nor other requests, so one step can serve many of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.engine.drafting.lengths import MOST_GUESSES
from device_agent.engine.drafting.verify import verified
from device_agent.engine.grammars.guide import Guide
from device_agent.engine.logprobs import PromptLogprobs, logprob_of
from device_agent.engine.records import FinishReason, Generation, Grammar, Piece, Timings, TokenLogprob
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.text.decoding import Detokenizer, StopStrings, TextDecoder
from edgekit.errors import ContextOverflow, InvalidRequest


@dataclass(frozen=True, slots=True)
class Language:
    """What a model's ids mean: their text, and which of them end an answer.

    `guide` makes the guide of a grammar, and raises InvalidRequest; None: this model follows none.
    """

    tokenizer: TextDecoder
    eos: frozenset[int]
    vocab: int
    guide: Callable[[Grammar], Guide] | None = None


class Guesser(Protocol):
    """Guesses how one request's text goes on; `drafting.Guesser` does."""

    def guess(self, ids: Sequence[int], *, room: int, cost: Callable[[int], float]) -> Sequence[int]:
        """At most `room` guesses of what follows `ids`, prompt and answer so far; none where a plain step is faster.

        `cost` is the seconds of a step that reads so many tokens, all of whose logits are wanted.
        """


def room_for(generation: Generation, *, context_tokens: int) -> int:
    """How many tokens the answer may have: prompt and answer together fill the context at most.

    At least 1, or 0 where nothing but the prompt's logprobs is asked for. Raises InvalidRequest (empty prompt, or
    `max_tokens` too small) or ContextOverflow (no room for that).
    """
    prompt_tokens, max_tokens = len(generation.prompt), generation.max_tokens
    if prompt_tokens < 1:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    fewest = 0 if generation.prompt_logprobs else 1
    if max_tokens is not None and max_tokens < fewest:
        raise InvalidRequest(f"max_tokens is {max_tokens}, and must be at least {fewest}.", param="max_tokens")
    room = context_tokens - prompt_tokens
    if room < (0 if max_tokens == 0 else 1):
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
        self._room = room_for(generation, context_tokens=context_tokens)
        self._eos = language.eos
        self._history = History(generation.prompt)
        self._detokenizer = Detokenizer(language.tokenizer, shown=generation.shown)
        self._stops = StopStrings(generation.stop)
        self._unsent: list[int] = []
        self._top = generation.top_logprobs
        self._logprobs: list[TokenLogprob] = []  # of the tokens that were not sent
        self._prompt_logprobs = PromptLogprobs(generation.prompt, top=self._top or 0)
        self._told_prompt = not generation.prompt_logprobs
        self._drafts: Iterator[int] = iter(())
        self._clock = clock
        self._started = clock()
        self._first_s = self._last_s = 0.0

    @property
    def left(self) -> int:
        """Tokens to be read before the next one can be chosen; 1 while it writes."""
        return len(self.ids) - self.read

    @property
    def reads(self) -> bool:
        """Whether its next step reads the prompt, or an answer again whose cache was lost."""
        return self.left > 1 or self.wants_prompt or self.job.prepared is not None

    @property
    def wants_prompt(self) -> bool:
        """Whether the logits of the prompt's own tokens are still wanted."""
        return not self._told_prompt

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
        verified(logits, drafts, self._choose, self._history, stop=self._take)

    def accept_prompt(self, logits: Floats) -> None:
        """Learn from the logits [positions, vocab] of those of the prompt's tokens that were `read` last.

        After all of them their logprobs are delivered, and what follows is chosen. Raises ServerError.
        """
        self._prompt_logprobs.note(self.read - len(logits), logits)
        if self.left:
            return
        self._told_prompt = True
        self.job.put(Piece(text="", prompt_logprobs=self._prompt_logprobs.all()))
        if self.room:
            self.accept(logits[-1:])
        else:
            self._show("", "length")

    def drafts(self, *, cost: Callable[[int], float]) -> Sequence[int]:
        """Guesses of what comes next: what its grammar forces, or else the guesser's that the grammar allows."""
        most = self.room - 1  # the step's own token comes on top
        guide = self.job.guide
        if self.guesser is None or most < 1:
            return ()
        if guide is not None and (forced := guide.forced()):
            return forced[: min(most, MOST_GUESSES)]
        found = self.guesser.guess(self.ids, room=most, cost=cost)[:most]
        return found if guide is None or not found else found[: guide.allowed(found)]

    def _choose(self, logits: Floats, history: History) -> int:
        guide = self.job.guide
        token_id = self.job.sampler(logits if guide is None else guide.masked(logits), history)
        if self._top is not None:
            self._logprobs.append(logprob_of(logits, token_id, top=self._top))
        return token_id

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
            if self.job.guide is not None:
                self.job.guide.take(token_id)
                finish = "stop" if self.job.guide.complete else finish
            self._show(self._detokenizer.push(token_id), finish)
        return self.finished

    def cancel(self) -> None:
        """End it where it is; what was held back is delivered."""
        self._show("", "cancelled")

    def _show(self, text: str, finish: FinishReason | None) -> None:
        if finish:
            text += self._detokenizer.finish()
        text, stopped_by = self._stops.push(text)
        if stopped_by is not None:
            finish = "stop"
        elif finish:
            text += self._stops.finish()
        if finish:
            self.finished = True
            self.job.end(
                Piece(
                    text=text,
                    tokens=tuple(self._unsent),
                    logprobs=tuple(self._logprobs),
                    finish=finish,
                    stopped_by=stopped_by,
                    timings=self._timings(),
                )
            )
        elif text:
            self.job.put(Piece(text=text, tokens=tuple(self._unsent), logprobs=tuple(self._logprobs)))
            self._unsent.clear()
            self._logprobs.clear()

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
