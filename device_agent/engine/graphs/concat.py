"""One row over a graph that appends to its cache by copying it (`kv: concat` in the manifest).

Such graphs come from other exporters: they are slower than ours on long texts, and they run. The cache
stays where onnxruntime put it and goes back in as it is; only forgetting tokens copies what is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_agent.engine.graphs.cache import check_snapshot
from device_agent.engine.graphs.shared import check_ids
from device_agent.engine.rows import Floats, Lora, Snapshot
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.contract import CACHE_VALUE_BYTES
from edgekit.errors import WrongBase

Ids = npt.NDArray[np.int64]
Array = npt.NDArray[np.generic]


class GrowingGraph(Protocol):
    """A graph together with the cache that it returned last."""

    inputs: frozenset[str]

    def append(self, feeds: Mapping[str, Ids]) -> Floats:
        """Run on `feeds` and the cache, keep the longer cache: logits [1, kept, vocab]. Raises BundleError."""

    def cached(self, length: int) -> tuple[Array, ...]:
        """A copy of the first `length` tokens' keys and values of each layer in turn: [kv_heads, length, head_dim]."""

    def put(self, arrays: Sequence[Array]) -> None:
        """Have a cache of exactly these keys and values."""


class ConcatRows:
    """Implements rows.Rows over a GrowingGraph, with one row."""

    most_rows = 1

    def __init__(self, graph: GrowingGraph, arch: ModelArch) -> None:
        self._graph = graph
        self._arch = arch
        self._length = 0

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._arch.context

    @property
    def bytes_per_token(self) -> int:
        """Cache memory that one token takes."""
        return self._arch.kv_values_per_token * CACHE_VALUE_BYTES["float32"]

    def length(self, row: int) -> int:
        """Tokens in the cache. Raises ValueError for any row but 0."""
        if row:
            raise ValueError(f"there is one row, 0, and {row} is none")
        return self._length

    def adapt(self, row: int, lora: Lora | None) -> None:
        """As `rows.Rows`: such graphs take no adapters."""
        if lora is not None:
            raise WrongBase(lora.name, "graphs of other exporters take no adapters")

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        """As `rows.Rows`."""
        past = self.length(row)
        check_ids(ids, past=past, arch=self._arch)
        if not 0 <= keep <= len(ids):
            raise ValueError(f"no logits of {keep} of {len(ids)} tokens")
        total = past + len(ids)
        feeds: dict[str, Ids] = {
            contract.INPUT_IDS: np.asarray([ids], np.int64),
            contract.ATTENTION_MASK: np.ones((1, total), np.int64),
            contract.POSITION_IDS: np.arange(past, total, dtype=np.int64)[None],
            contract.LOGITS_TO_KEEP: np.asarray(max(keep, 1), np.int64),
        }
        logits = self._graph.append({name: feeds[name] for name in feeds.keys() & self._graph.inputs})
        self._length = total
        return logits[0, logits.shape[1] - keep :]

    def decode(self, ids: Mapping[int, int]) -> Floats:
        """As `rows.Rows`."""
        if len(ids) != 1:
            raise ValueError(f"there is one row, and not {len(ids)}")
        ((row, token),) = ids.items()
        return self.read(row, (token,))

    def truncate(self, row: int, length: int) -> None:
        """Forget the tokens after the first `length`. Raises ValueError if there are fewer."""
        if not 0 <= length <= self.length(row):
            raise ValueError(f"cannot keep {length} of {self._length} tokens")
        if length != self._length:
            self._graph.put(self._graph.cached(length))
            self._length = length

    def snapshot(self, row: int, length: int) -> Snapshot:
        """A copy of the first `length` tokens. Raises ValueError if there are fewer."""
        if not 0 <= length <= self.length(row):
            raise ValueError(f"there are {self._length} tokens, not {length}")
        return Snapshot(length, self._graph.cached(length))

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Hold exactly what `snapshot` holds. Raises ValueError if it is not of such a cache."""
        self.length(row)
        check_snapshot(snapshot, self._arch, np.dtype(np.float32))
        self._graph.put(snapshot.arrays)
        self._length = snapshot.length

    def shrink(self) -> None:
        """The cache is never larger than what it holds."""
