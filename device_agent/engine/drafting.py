"""Guessed tokens, as the batch sees them: somebody who proposes, and somebody who says how many are worth it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, Sampler


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def propose(self, ids: Sequence[int], most: int) -> Sequence[int]:
        """0 to `most` tokens that may follow `ids`: a prompt and its answer so far."""


class DraftLengths(Protocol):
    """How many guesses pay."""

    def most(self, cost: Callable[[int], float]) -> int:
        """How many to make now, 0 for none; `cost` is the seconds of a step over so many tokens."""

    def note(self, proposed: int, accepted: int) -> None:
        """Of `proposed` guesses the first `accepted` were right."""


def verified(
    logits: Floats, drafts: Sequence[int], sampler: Sampler, history: History, *, stop: Callable[[int], bool]
) -> list[int]:
    """The tokens that a step gave: those guesses that came true, and the one that the model chose after them.

    `logits` [len(drafts) + 1, vocab] are those after the newest token and after each guess. Tokens go into `history`
    as they come; `stop` is asked once for each and ends the list after it. Raises what the sampler raises.
    """
    tokens: list[int] = []
    for at in range(len(drafts) + 1):
        token = sampler(logits[at], history)
        history.add(token)
        tokens.append(token)
        if stop(token) or at == len(drafts) or token != drafts[at]:
            break
    return tokens
