"""Guesses from a smaller model with the same tokenizer (Leviathan et al. 2023)."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from device_agent.engine.kept.prefixes import common
from device_agent.engine.rows import Floats, Rows
from edgekit.errors import UsageError

log = logging.getLogger(__name__)

_CHUNK_TOKENS = 128
_READ_AHEAD = 32
"""Catching up with more tokens than this says nothing about what a guess usually costs."""


class Vocabulary(Protocol):
    """What is needed of `tokenizers.Tokenizer`."""

    def get_vocab(self, with_added_tokens: bool = True) -> Mapping[str, int]:  # noqa: FBT001, FBT002 - as it has it
        """Ids by the tokens' texts."""


def check_same_vocabulary(model: Vocabulary, draft: Vocabulary, *, name: str) -> None:
    """Raises UsageError if the draft model `name` gives other ids to tokens: its guesses would be other words."""
    ours, theirs = model.get_vocab(), draft.get_vocab()
    if ours != theirs:
        differing = sum(theirs.get(token) != at for token, at in ours.items()) + len(theirs.keys() - ours.keys())
        raise UsageError(f"{name} cannot guess for this model: {differing:,} tokens differ between their tokenizers.")


class ModelDrafter:
    """Greedy guesses of a smaller model with the same tokenizer, in the first of its `rows`.

    Serves one request after the other: what the row holds is kept as far as the text agrees. `vocab` is the larger
    model's; ids that it does not have are never guessed. An error is logged once, and ends the guessing alone.
    """

    def __init__(self, rows: Rows, *, vocab: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.guess_s = 0.0
        """Seconds that a guess takes, a moving average; 0 before the first."""
        self._rows = rows
        self._vocab = vocab
        self._clock = clock
        self._held: list[int] = []  # what the row has read
        self._failed = False

    def propose(self, ids: Sequence[int], most: int) -> Sequence[int]:
        """At most `most` guesses of what follows `ids`; fewer where its context ends, none after an error."""
        most = min(most, self._rows.context_tokens - len(ids) + 1)  # nobody reads the last one
        if self._failed or most < 1:
            return ()
        try:
            return self._guesses(ids, most)
        except Exception:  # whatever it is, the request needs no guesses
            log.exception("The draft model failed, and is not used any more")
            self._failed = True
            return ()

    def _guesses(self, ids: Sequence[int], most: int) -> Sequence[int]:
        started, held = self._clock(), common(self._held, ids)
        guesses = [self._likeliest(self._read(ids, min(held, len(ids) - 1)))]
        while len(guesses) < most:
            logits = self._rows.decode({0: guesses[-1]})
            self._held.append(guesses[-1])
            guesses.append(self._likeliest(logits))
        if len(ids) - held <= _READ_AHEAD:
            each_s = (self._clock() - started) / most
            self.guess_s = 0.8 * self.guess_s + 0.2 * each_s if self.guess_s else each_s
        return guesses

    def _read(self, ids: Sequence[int], held: int) -> Floats:
        """Keep the first `held` tokens of the row, read the others; logits [1, vocab]."""
        self._rows.truncate(0, held)
        del self._held[held:]
        while True:
            chunk = ids[len(self._held) : len(self._held) + _CHUNK_TOKENS]
            logits = self._rows.read(0, chunk)
            self._held += chunk
            if len(self._held) == len(ids):
                return logits

    def _likeliest(self, logits: Floats) -> int:
        return int(logits[0, : self._vocab].argmax())
