"""A second graph that only reads prompts: it appends keys and values to a row's cache, and makes no logits.

Reading many tokens wants other kernels than decoding one (integer products of whole matrices, of weights that
are too large to ship). Both graphs share one cache; `shared.OnnxRows` says which of them reads what.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit import contract

Array = npt.NDArray[np.generic]


class Binding(Protocol):
    """A graph and what its inputs and outputs are bound to. Arrays are contiguous and are kept alive."""

    def input(self, name: str, array: Array) -> None:
        """Let the graph read `array` at each run from now on."""

    def output(self, name: str, array: Array) -> None:
        """Let the graph write into `array`."""

    def run(self) -> None:
        """Compute. Raises BundleError."""


class BoundPrompt(Protocol):
    """A prompt graph over one row's cache; it keeps that memory alive."""

    def read(self, past: int, ids: Sequence[int], *, width: int = 0) -> None:
        """Append `ids` after the `past` tokens of the row.

        The graph is told that the text is at least `width` tokens long. Raises BundleError.
        """


class PromptGraph(Protocol):
    """What reads a prompt instead of the graph that decodes."""

    @property
    def crossover(self) -> int:
        """Fewest tokens that it reads faster than the graph that decodes does."""

    def over(self, cache: Sequence[Array]) -> BoundPrompt:
        """The graph over a row: keys and values of each layer in turn, [1, kv_heads, capacity, head_dim]."""


class OnnxPromptGraph:
    """Implements PromptGraph over a graph of the contract's inputs whose only outputs are the cache."""

    def __init__(self, bind: Callable[[], Binding], *, crossover: int) -> None:
        self._bind = bind
        self.crossover = crossover

    def over(self, cache: Sequence[Array]) -> BoundPrompt:
        """As `PromptGraph`."""
        return _OverCache(self._bind(), cache)


class _OverCache:
    """Implements BoundPrompt. Binding a cache takes milliseconds, as long as reading a few tokens: it is done once."""

    def __init__(self, binding: Binding, cache: Sequence[Array]) -> None:
        self._binding = binding
        bind_cache(binding, cache)

    def read(self, past: int, ids: Sequence[int], *, width: int = 0) -> None:
        """As `BoundPrompt`."""
        self._binding.input(contract.INPUT_IDS, np.asarray([ids], np.int64))
        self._binding.input(contract.ATTENTION_MASK, mask_of([past + len(ids)], width))
        self._binding.run()


def bind_cache(binding: Binding, cache: Sequence[Array]) -> None:
    """Past and present of each layer's keys and values to the same array: what is appended is appended in place."""
    for number, array in enumerate(cache):
        layer, half = number // 2, contract.HALVES[number % 2]
        binding.input(contract.past_name(layer, half), array)
        binding.output(contract.present_name(layer, half), array)


def mask_of(totals: Sequence[int], width: int = 0) -> npt.NDArray[np.int64]:
    """The attention mask of rows of these many tokens, right-padded: [rows, the most of them or `width` if more]."""
    columns = np.arange(max(width, *totals))
    return (columns < np.asarray(totals)[:, None]).astype(np.int64)
