"""Plain completions as an Exchange: several prompts, several answers to each, and the prompt's own text in front."""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from device_agent.conversation.merge import Merged
from device_agent.conversation.records import Ended, Event, Said, Spent
from device_agent.engine.records import Generation, Grammar, ModelService, Piece, Sampling, TokenLogprob
from edgekit.errors import InvalidRequest

Prompt = str | tuple[int, ...]
"""Plain text, or ids that the client has already cut it into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What to continue. The i-th answer to a prompt is choice `prompt * choices + i`.

    With `echo` an answer begins with its prompt, and has the prompt's logprobs too if any are asked for. `max_tokens`
    may then be 0. Everything else is as in `Generation`.
    """

    prompts: tuple[Prompt, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    choices: int = 1
    echo: bool = False
    top_logprobs: int | None = None
    adapter: str | None = None


def start_completion(model: ModelService, request: CompletionRequest) -> "Completion":
    """Queue every answer. Raises InvalidRequest for a prompt that is none, and what `ModelService.submit` raises."""
    texts, generations = [], []
    for prompt in request.prompts:
        ids = _ids(model, prompt)
        texts.append(prompt if isinstance(prompt, str) else model.text_of(ids) if request.echo else "")
        generations.append(_generation(request, ids))
    merged = Merged(model)
    for generation in generations:
        for choice in range(request.choices):
            merged.submit(_varied(generation, choice), metered=choice == 0)
    return Completion(merged, request, tuple(texts))


def _ids(model: ModelService, prompt: Prompt) -> tuple[int, ...]:
    ids = model.text_prompt(prompt) if isinstance(prompt, str) else prompt
    if not ids:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    vocab = model.manifest.arch.vocab
    if max(ids) >= vocab:
        raise InvalidRequest(f"prompt: this model's token ids go from 0 to {vocab - 1}.", param="prompt")
    return ids


def _generation(request: CompletionRequest, prompt: tuple[int, ...]) -> Generation:
    nothing = request.max_tokens == 0  # the engine then reads the prompt all the same: for its length, at least
    return Generation(
        prompt=prompt,
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        grammar=request.grammar,
        top_logprobs=0 if nothing and request.top_logprobs is None else request.top_logprobs,
        prompt_logprobs=request.echo and (nothing or request.top_logprobs is not None),
        adapter=request.adapter,
    )


def _varied(generation: Generation, choice: int) -> Generation:
    """The same for another choice: with one seed for all of them they would be equal."""
    seed = generation.sampling.seed
    if choice == 0 or seed is None:
        return generation
    return replace(generation, sampling=replace(generation.sampling, seed=seed + choice))


class Completion:
    """A running Exchange of plain text (records.Exchange)."""

    def __init__(self, merged: Merged, request: CompletionRequest, texts: tuple[str, ...]) -> None:
        self._merged = merged
        self._request = request
        self._texts = texts
        self._events: deque[Event] = deque()
        if request.echo and request.top_logprobs is None:
            self._events.extend(self._echo(number) for number in range(len(texts) * request.choices))

    def next(self, timeout_s: float | None = None) -> Event | None:
        """As records.Exchange."""
        while not self._events and (found := self._merged.next(timeout_s)) is not None:
            self._take(*found)
        return self._events.popleft() if self._events else None

    @property
    def ended(self) -> bool:
        """As records.Exchange."""
        return self._merged.ended and not self._events

    @property
    def spent(self) -> Spent:
        """As records.Exchange."""
        return self._merged.spent

    def cancel(self) -> None:
        """As records.Exchange."""
        self._merged.cancel()

    def _take(self, number: int, piece: Piece) -> None:
        wanted = self._request.top_logprobs is not None
        if piece.prompt_logprobs and wanted:
            self._events.append(self._echo(number, piece.prompt_logprobs))
        if piece.text or (piece.logprobs and wanted):
            self._events.append(Said(text=piece.text, logprobs=piece.logprobs if wanted else (), choice=number))
        if piece.finish:
            reason: Literal["stop", "length"] = "length" if piece.finish == "length" else "stop"
            self._events.append(Ended(reason=reason, timings=piece.timings, stopped_by=piece.stopped_by, choice=number))

    def _echo(self, number: int, logprobs: tuple[TokenLogprob, ...] = ()) -> Said:
        return Said(text=self._texts[number // self._request.choices], logprobs=logprobs, choice=number)
