"""QuantSpec: how one weight matrix is stored, and what that costs in bytes.

A matrix of shape [rows, columns] (outputs, inputs) is cut along its columns into blocks of
`block_size` values; each block has one float32 scale. This is the layout of onnxruntime's
`MatMulNBits` and `GatherBlockQuantized` operators (com.microsoft, version 1).

`offset` adds what symmetric blocks lack: a constant per block, as Q4_1 and the K formats of GGUF
have. Since a constant times a block of inputs is that constant times their mean, the constants
are kept as further columns of the same matrix, which multiply the block means of the input; two
columns per block (a coarse and a fine one) carry a constant to about 1/250 of its range.
"""

import re
from typing import Literal, Self

import msgspec

Precision = Literal["int4", "int8", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("int4", "int8", "fp32")
BLOCK_SIZES = (16, 32, 64, 128, 256)
_NAME = re.compile(r"(int4|int8)-b(\d+)(\+offset)?")


class QuantSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bits` is 4, 8 or 32 (float32, no blocks)."""

    bits: int
    block_size: int = 0
    offset: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a layout that the operators do not have."""
        if self.bits not in (4, 8, 32) or (self.bits != 32 and self.block_size not in BLOCK_SIZES):
            raise ValueError(f"no kernel for {self.bits} bits in blocks of {self.block_size}")

    @property
    def name(self) -> str:
        """`int4-b32`, `int8-b64`, `int4-b32+offset` or `fp32`."""
        if self.bits == 32:
            return "fp32"
        return f"int{self.bits}-b{self.block_size}" + ("+offset" if self.offset else "")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a `name` back. Raises ValueError."""
        if name == "fp32":
            return cls(32)
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not a quantisation such as int4-b32, int8-b64+offset or fp32")
        return cls(int(match[1][3:]), int(match[2]), offset=bool(match[3]))

    def columns_stored(self, columns: int) -> int:
        """Columns of the stored matrix: the weights' own, and two per block for offsets."""
        return columns + 2 * -(-columns // self.block_size) if self.offset else columns

    def blocks(self, columns: int) -> int:
        """Blocks per row, the last one possibly padded."""
        return -(-self.columns_stored(columns) // self.block_size)

    def bytes_for(self, rows: int, columns: int) -> int:
        """Size of the stored matrix with its scales."""
        if self.bits == 32:
            return rows * columns * 4
        return rows * self.blocks(columns) * (self.block_size * self.bits // 8 + 4)


FLOAT = QuantSpec(32)
