"""Conversations that outgrow longrope's first table (Ding et al. 2024; Phi-3 and later).

Such a model rotates queries and keys by one table in texts of up to some length, and by another in longer ones; the
graph chooses by the length of the whole text. Keys in the cache were rotated by the table of their time, so when a
text crosses that length, in either direction, what is cached is read again, once.
"""

from collections.abc import Sequence
from typing import Protocol

from device_agent.engine.generate import CHUNK_TOKENS
from device_agent.engine.sampling import Logits


class WideDecoder(Protocol):
    """A StepDecoder that can be told to take the text for a longer one."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""

    def step(self, ids: Sequence[int], *, width: int = 0) -> Logits:
        """Append `ids`, as part of a text of at least `width` tokens: logits [vocab] after the last."""


class LongropeDecoder:
    """Implements generate.StepDecoder. Texts of up to `limit` tokens are short ones."""

    def __init__(self, decoder: WideDecoder, limit: int) -> None:
        self._decoder = decoder
        self._limit = limit
        self._ids: list[int] = []
        self._long = False

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._decoder.length

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._decoder.context_tokens

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self._decoder.truncate(length)

    def step(self, ids: Sequence[int]) -> Logits:
        """Append `ids` and return the logits [vocab] after the last; the array is reused by the next step.

        Raises as the decoder does.
        """
        del self._ids[self._decoder.length :]  # forgotten since, or never read because a step failed
        is_long = len(self._ids) + len(ids) > self._limit
        width = self._limit + 1 if is_long else 0
        if is_long != self._long:
            self._long = is_long
            self._decoder.truncate(0)
            for start in range(0, len(self._ids), CHUNK_TOKENS):  # attention's memory grows with what is read at once
                self._decoder.step(self._ids[start : start + CHUNK_TOKENS], width=width)
        logits = self._decoder.step(ids, width=width)
        self._ids += ids
        return logits
