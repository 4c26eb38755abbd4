"""What tests and the maker of tests/golden/gguf agree on."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "gguf"
CORPUS = (
    "The boat left the harbour before dawn and came back with the evening tide.",
    "Small boats keep near the shore, large ships sail far out and come back late.",
    "  two spaces,   three spaces, and numbers: 1 22 333 4096",
    "def square(x):\n    return x * x  # a line of code\n",
)


def value_of(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Multiples of 1/16 between -1/2 and 1/2, or 1/2 and 3/2 in norms, drawn by the tensor's name."""
    steps = np.random.default_rng(zlib.crc32(name.encode())).integers(-8, 9, shape)
    return (steps / 16 + (1.0 if "norm" in name or "ln_" in name else 0.0)).astype(np.float32)


def values_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """All tensors of `shapes`."""
    return {name: value_of(name, shape) for name, shape in shapes.items()}
