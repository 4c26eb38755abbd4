"""How a checkpoint's tensors become ours: renamed, cut out of a fused one, transposed, shifted or stacked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Which rows of a fused tensor are ours, and how many rows it must have."""

    rows: Rows
    total: int


@dataclass(frozen=True)
class Part:
    """One of our tensors as a checkpoint has it.

    `theirs` are the names that it may have; the first that is there is read. `cut` picks rows of a fused tensor,
    `transposed` swaps the axes (GPT-2's Conv1D), `plus` is added (norms that store gain - 1), and `stacked` takes
    one vector for each `{h}`, as rows of a matrix. A part that has no name of theirs is `plus` everywhere.
    """

    theirs: tuple[str, ...]
    cut: Callable[[ModelArch], Cut] | None = None
    transposed: bool = False
    plus: float = 0.0
    stacked: bool = False


Tensors = Mapping[str, "str | Part"]
"""Our name -> theirs. `{i}` is the layer in both."""


def query_key_value(which: str) -> Callable[[ModelArch], Cut]:
    """Rows of Q, K or V where the three are stacked whole, one after the other (Phi-3, GPT-2)."""

    def cut(arch: ModelArch) -> Cut:
        query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
        start, count = {"q": (0, query), "k": (query, key), "v": (query + key, key)}[which]
        return Cut(np.arange(start, start + count), query + 2 * key)

    return cut


def grouped_query_key_value(which: str) -> Callable[[ModelArch], Cut]:
    """Rows of Q, K or V where each key head follows the queries that share it, and a value head follows (Falcon, NeoX).

    The fused tensor is [kv_heads, heads / kv_heads + 2, head_dim] in its rows.
    """

    def cut(arch: ModelArch) -> Cut:
        sharing = arch.heads // arch.kv_heads
        total = arch.kv_heads * (sharing + 2) * arch.head_dim
        grouped = np.arange(total).reshape(arch.kv_heads, sharing + 2, arch.head_dim)
        chosen = {"q": grouped[:, :sharing], "k": grouped[:, sharing], "v": grouped[:, sharing + 1]}[which]
        return Cut(chosen.reshape(-1), total)

    return cut


def half(which: str) -> Callable[[ModelArch], Cut]:
    """Rows of gate or up where the two are stacked, gate first."""

    def cut(arch: ModelArch) -> Cut:
        start = {"gate": 0, "up": arch.intermediate}[which]
        return Cut(np.arange(start, start + arch.intermediate), 2 * arch.intermediate)

    return cut
