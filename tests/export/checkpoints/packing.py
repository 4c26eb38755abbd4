"""Writes packed linear layers word by word, from the definition of the formats: slow, plain Python, no numpy tricks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tests import tiny

Integers = NDArray[np.int64]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Output that nibble 0, 1, 2 ... of a word belongs to (AutoAWQ, awq/utils/packing_utils.py)."""


def word(values: Sequence[int], bits: int) -> int:
    """Values to 32 bits, the first in the lowest; as the signed number that int32 makes of it."""
    packed = sum(int(value) << (bits * place) for place, value in enumerate(values))
    assert 0 <= packed < 1 << 32
    return packed - (1 << 32) if packed >= 1 << 31 else packed


def pack_down(values: Integers, bits: int) -> NDArray[np.int32]:
    """[rows, columns] -> [rows * bits / 32, columns]."""
    n = 32 // bits
    rows, columns = values.shape
    return np.array(
        [[word(values[r : r + n, c].tolist(), bits) for c in range(columns)] for r in range(0, rows, n)], np.int32
    )


def pack_across(values: Integers, bits: int, order: Sequence[int] | None = None) -> NDArray[np.int32]:
    """[rows, columns] -> [rows, columns * bits / 32]."""
    n = 32 // bits
    places = range(n) if order is None else order
    rows, columns = values.shape
    return np.array(
        [[word([int(values[r, c + p]) for p in places], bits) for c in range(0, columns, n)] for r in range(rows)],
        np.int32,
    )


@dataclass(frozen=True)
class Layer:
    """Random codes and zero points of one linear layer, [inputs, outputs] as the formats have them."""

    inputs: int
    outputs: int
    bits: int = 4
    group: int = 32
    symmetric: bool = False
    index: Integers | None = None
    seed: int = 0
    codes: Integers = field(init=False)
    zeros: Integers = field(init=False)
    scales: NDArray[np.float16] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        groups = 1 if self.group == -1 else -(-self.inputs // self.group)
        top = 1 << self.bits
        zeros = np.full((groups, self.outputs), top // 2) if self.symmetric else None
        scales = random.uniform(0.5, 1.5, (groups, self.outputs)) * (0.9 / top)
        object.__setattr__(self, "codes", random.integers(0, top, (self.inputs, self.outputs)))
        object.__setattr__(self, "zeros", random.integers(0, top, (groups, self.outputs)) if zeros is None else zeros)
        object.__setattr__(self, "scales", scales.astype(np.float16))

    @property
    def group_index(self) -> Integers:
        """Group of each input."""
        if self.index is not None:
            return self.index
        return np.arange(self.inputs) // (self.inputs if self.group == -1 else self.group)

    def weight(self) -> NDArray[np.float32]:
        """[outputs, inputs], from the definition."""
        found = np.empty((self.outputs, self.inputs), np.float32)
        for i, group in enumerate(self.group_index):
            for o in range(self.outputs):
                found[o, i] = np.float32(self.scales[group, o]) * np.float32(self.codes[i, o] - self.zeros[group, o])
        return found

    def gptq(self, prefix: str, *, v2: bool = False) -> dict[str, NDArray[Any]]:
        """Tensors of AutoGPTQ's QuantLinear."""
        stored = self.zeros if v2 else (self.zeros - 1) % (1 << self.bits)
        return {
            f"{prefix}.qweight": pack_down(self.codes, self.bits),
            f"{prefix}.qzeros": pack_across(stored, self.bits),
            f"{prefix}.scales": self.scales,
            f"{prefix}.g_idx": self.group_index.astype(np.int32),
        }

    def awq(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Tensors of AutoAWQ's WQLinear_GEMM."""
        return {
            f"{prefix}.qweight": pack_across(self.codes, 4, AWQ_ORDER),
            f"{prefix}.qzeros": pack_across(self.zeros, 4, AWQ_ORDER),
            f"{prefix}.scales": self.scales,
        }


def write_folder(folder: Path, tensors: dict[str, NDArray[Any]], settings: object, **config: object) -> Path:
    """A folder with these tensors, announced by `settings` as its quantization_config."""
    tiny.write_hf_folder(folder)
    facts = {**tiny.hf_config(), **config, "quantization_config": settings}
    tiny.write_json(folder / "config.json", facts)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(values) for name, values in tensors.items()}, folder / "model.safetensors"
    )
    return folder
