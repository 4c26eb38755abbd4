"""The KV cache: buffers that start small and grow by need.

Sizing it to a model's whole context would cost 805 MB for a 0.5 B model with a 32k window before the
first word. Here the capacity starts at a few hundred tokens and doubles, so that copying stays below
one extra pass over the final cache.
"""

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from edgekit.contract import CacheType

FIRST_CAPACITY_TOKENS = 256


def capacity_for(needed_tokens: int, current_tokens: int, context_tokens: int) -> int:
    """The capacity to have so that `needed_tokens` fit: at least double the current one, at most the context."""
    if needed_tokens <= current_tokens:
        return current_tokens
    wanted = max(FIRST_CAPACITY_TOKENS, 2 * current_tokens, needed_tokens)
    return min(wanted, context_tokens)


class KVCache:
    """Keys and values of one sequence: per layer two arrays [1, kv_heads, capacity, head_dim] of the type `kind`."""

    def __init__(self, arch: ModelArch, kind: CacheType = "float32") -> None:
        self._arch = arch
        self._dtype = np.dtype(kind)
        self.length = 0
        self.capacity = 0
        self.buffers: list[npt.NDArray[np.generic]] = []
        self.reserve(1)

    def reserve(self, tokens: int) -> bool:
        """Make room for `tokens` in all; True if the buffers are new ones and must be bound again."""
        capacity = capacity_for(tokens, self.capacity, self._arch.context)
        if capacity == self.capacity:
            return False
        shape = (1, self._arch.kv_heads, capacity, self._arch.head_dim)
        grown = [np.zeros(shape, self._dtype) for _ in range(2 * self._arch.layers)]
        for old, new in zip(self.buffers, grown, strict=False):  # there are none at first
            new[:, :, : self.length] = old[:, :, : self.length]
        self.buffers, self.capacity = grown, capacity
        return True
