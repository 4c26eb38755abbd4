"""QuantSpec: how one weight matrix is stored, and what that costs in bytes.

A matrix of shape [rows, columns] (outputs, inputs) is cut along its columns into blocks of
`block_size` values; each block has one float32 scale. This is the layout of onnxruntime's
`MatMulNBits` and `GatherBlockQuantized` operators (com.microsoft, version 1).

An *affine* matrix has, beside the scale, a constant per block: value = scale * code + constant, as
the Q4_1 and K formats of GGUF do. `MatMulNBits` takes the part of the constant that is a multiple of
the scale as a zero point. A constant times a block of inputs is that constant times their sum, so the
rest, at most half a scale, is kept as further columns of the same matrix (one per block), which
multiply the block means of the input. (A float zero point would say the same, but that kernel
dequantises whole matrices and is a hundred times slower.) Where the constants are whole multiples of
their scales, as in GPTQ and AWQ checkpoints, zero points alone say it all ("zp").

The scales of a *twin* matrix are integer multiples (1 to 15, either sign) of one number per row: the same
weights are exactly an INT8 matrix with a scale per row.
"""

import re
from typing import Literal, Self

import msgspec

Precision = Literal["int4", "int8", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("int4", "int8", "fp32")
BLOCK_SIZES = (16, 32, 64, 128, 256)
_NAME = re.compile(r"(int4|int8)-b(\d+)(-affine|-zp|-twin)?")
Offsets = Literal["none", "zero_points", "affine"]
_SUFFIXES: dict[tuple[Offsets, bool], str] = {
    ("none", False): "",
    ("affine", False): "-affine",
    ("zero_points", False): "-zp",
    ("none", True): "-twin",
}
_FIELDS = {suffix: fields for fields, suffix in _SUFFIXES.items()}


class QuantSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bits` is 4, 8 or 32 (float32, no blocks); `offsets` says what is added to scale times code."""

    bits: int
    block_size: int = 0
    offsets: Offsets = "none"
    twin: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a layout that the operators do not have."""
        if self.bits not in (4, 8, 32) or (self.bits != 32 and self.block_size not in BLOCK_SIZES):
            raise ValueError(f"no kernel for {self.bits} bits in blocks of {self.block_size}")
        if self.bits == 32 and (self.block_size, self.offsets) != (0, "none"):
            raise ValueError("floats have neither blocks nor offsets")
        if (self.offsets, self.twin) not in _SUFFIXES or (self.twin and self.bits != 4):
            raise ValueError("only symmetric INT4 blocks have an INT8 twin")

    @property
    def affine(self) -> bool:
        """Whether a constant per block is added."""
        return self.offsets == "affine"

    @property
    def name(self) -> str:
        """`int4-b32`, `int8-b64`, `int4-b64-twin`, `int4-b32-affine`, `int4-b128-zp` or `fp32`."""
        if self.bits == 32:
            return "fp32"
        return f"int{self.bits}-b{self.block_size}" + _SUFFIXES[self.offsets, self.twin]

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a `name` back. Raises ValueError."""
        if name == "fp32":
            return cls(32)
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not a quantisation such as int4-b32, int8-b64 or fp32")
        offsets, twin = _FIELDS[match[3] or ""]
        return cls(int(match[1][3:]), int(match[2]), offsets, twin=twin)

    def columns_stored(self, columns: int) -> int:
        """Columns of the stored matrix: the weights' own, and one per block for the constants of an affine one."""
        return columns + -(-columns // self.block_size) if self.affine else columns

    def blocks(self, columns: int) -> int:
        """Blocks per row, the last one possibly padded."""
        return -(-self.columns_stored(columns) // self.block_size)

    def bytes_for(self, rows: int, columns: int) -> int:
        """Size of the stored matrix with its scales and zero points."""
        if self.bits == 32:
            return rows * columns * 4
        blocks = self.blocks(columns)
        zero_points = 0 if self.offsets == "none" else -(-blocks * self.bits // 8)
        return rows * (blocks * (self.block_size * self.bits // 8 + 4) + zero_points)


FLOAT = QuantSpec(32)
