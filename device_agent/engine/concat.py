"""A decoder over a graph that appends to its cache by copying it (`kv: concat` in the manifest).

Such graphs come from other exporters: they are slower than ours on long texts, and they run. The cache
stays where onnxruntime put it and goes back in as it is; only forgetting tokens copies what is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.arch import ModelArch

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class GrowingGraph(Protocol):
    """A graph together with the cache that it returned last."""

    inputs: frozenset[str]

    def append(self, feeds: Mapping[str, Ids]) -> Floats:
        """Run on `feeds` and the cache, keep the longer cache: logits [1, kept, vocab]. Raises BundleError."""

    def truncate(self, length: int) -> None:
        """Keep the cache of the first `length` tokens."""


class ConcatDecoder:
    """Implements generate.StepDecoder over a GrowingGraph."""

    def __init__(self, graph: GrowingGraph, arch: ModelArch) -> None:
        self._graph = graph
        self._arch = arch
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._length

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._arch.context

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot keep {length} of {self._length} tokens")
        if length != self._length:
            self._graph.truncate(length)
            self._length = length

    def step(self, ids: Sequence[int]) -> Floats:
        """Append `ids` and return the logits [vocab] after the last.

        Raises ValueError if they do not fit into the context or are no tokens of the vocabulary, and BundleError if
        onnxruntime fails.
        """
        total = self._length + len(ids)
        if not ids or total > self._arch.context:
            raise ValueError(f"{len(ids)} tokens do not fit after {self._length}")
        if min(ids) < 0 or max(ids) >= self._arch.vocab:  # a table of embeddings may be read without a check
            raise ValueError(f"token ids go from 0 to {self._arch.vocab - 1}")
        feeds: dict[str, Ids] = {
            contract.INPUT_IDS: np.asarray([ids], np.int64),
            contract.ATTENTION_MASK: np.ones((1, total), np.int64),
            contract.POSITION_IDS: np.arange(self._length, total, dtype=np.int64)[None],
            contract.LOGITS_TO_KEEP: np.asarray(1, np.int64),
        }
        logits = self._graph.append({name: feeds[name] for name in feeds.keys() & self._graph.inputs})
        self._length = total
        last: Floats = logits[0, -1]
        return last
