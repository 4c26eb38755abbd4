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


class PromptGraph(Protocol):
    """What reads a prompt instead of the graph that decodes."""

    @property
    def crossover(self) -> int:
        """Fewest tokens that it reads faster than the graph that decodes does."""

    def read(self, cache: Sequence[Array], past: int, ids: Sequence[int], *, width: int = 0) -> None:
        """Append `ids` after the `past` tokens of a row.

        `cache` holds keys and values of each layer in turn, [1, kv_heads, capacity, head_dim]; the graph is told that
        the text is at least `width` tokens long. Raises BundleError.
        """


class OnnxPromptGraph:
    """Implements PromptGraph over a graph of the contract's inputs whose only outputs are the cache."""

    def __init__(self, bind: Callable[[], Binding], *, crossover: int) -> None:
        self._bind = bind
        self.crossover = crossover

    def read(self, cache: Sequence[Array], past: int, ids: Sequence[int], *, width: int = 0) -> None:
        """As `PromptGraph`. Bound anew each time: what stays bound would keep an outgrown cache alive."""
        binding = self._bind()
        bind_cache(binding, cache)
        binding.input(contract.INPUT_IDS, np.asarray([ids], np.int64))
        binding.input(contract.ATTENTION_MASK, mask_of([past + len(ids)], width))
        binding.run()


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
