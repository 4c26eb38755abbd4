"""A quantisation's name reads back, and its size is that of the stored arrays."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.quant import BLOCK_SIZES, FLOAT, Offsets, QuantSpec

OFFSETS = st.sampled_from(get_args(Offsets))
SYMMETRIC_OR_NOT = st.builds(QuantSpec, st.sampled_from([4, 8]), st.sampled_from(BLOCK_SIZES), OFFSETS)
TWINS = st.builds(QuantSpec, st.just(4), st.sampled_from(BLOCK_SIZES), twin=st.just(True))


@given(SYMMETRIC_OR_NOT | TWINS | st.just(FLOAT))
def test_a_name_reads_back(spec: QuantSpec) -> None:
    assert QuantSpec.parse(spec.name) == spec


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (FLOAT, "fp32"),
        (QuantSpec(4, 32), "int4-b32"),
        (QuantSpec(8, 128), "int8-b128"),
        (QuantSpec(4, 64, "affine"), "int4-b64-affine"),
        (QuantSpec(4, 128, "zero_points"), "int4-b128-zp"),
        (QuantSpec(4, 32, twin=True), "int4-b32-twin"),
    ],
)
def test_names_are_part_of_the_format(spec: QuantSpec, name: str) -> None:
    assert spec.name == name


@pytest.mark.parametrize(
    "name",
    ["", "int4", "int4-b", "int2-b32", "int4-b31", "int4-b32-affin", "INT4-b32", "int4-b32 ", "int4-b32-zp-twin"],
)
def test_a_name_without_a_meaning_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"kernel|quantisation"):
        QuantSpec.parse(name)


@pytest.mark.parametrize(("bits", "block_size"), [(3, 32), (16, 32), (0, 0), (4, 0), (8, 33), (4, -32)])
def test_a_layout_without_a_kernel_is_refused(bits: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="no kernel"):
        QuantSpec(bits, block_size)


@pytest.mark.parametrize(("bits", "offsets"), [(8, "none"), (32, "none"), (4, "affine"), (4, "zero_points")], ids=str)
def test_only_symmetric_four_bit_blocks_have_a_twin(bits: int, offsets: Offsets) -> None:
    with pytest.raises(ValueError, match="twin"):
        QuantSpec(bits, 0 if bits == 32 else 32, offsets, twin=True)


def test_a_twin_s_name_needs_four_bits() -> None:
    with pytest.raises(ValueError, match="twin"):
        QuantSpec.parse("int8-b32-twin")


@pytest.mark.parametrize(
    ("spec", "rows", "columns", "size"),
    [
        (FLOAT, 3, 5, 60),
        (QuantSpec(4, 32), 2, 64, 2 * (2 * 16 + 2 * 4)),
        (QuantSpec(8, 32), 2, 64, 2 * (2 * 32 + 2 * 4)),
        (QuantSpec(4, 32), 1, 33, 2 * 16 + 2 * 4),  # the last block is padded
        # 64 columns give 2 constants, so 66 columns in 3 blocks, with 3 zero points of 4 bits in 2 bytes
        (QuantSpec(4, 32, "affine"), 1, 64, 3 * 16 + 3 * 4 + 2),
        (QuantSpec(8, 32, "affine"), 1, 64, 3 * 32 + 3 * 4 + 3),
        (QuantSpec(4, 32, "zero_points"), 2, 96, 2 * (3 * 16 + 3 * 4 + 2)),  # 3 zero points in 2 bytes, no columns more
        (QuantSpec(8, 32, "zero_points"), 1, 96, 3 * 32 + 3 * 4 + 3),
        (QuantSpec(4, 32, twin=True), 2, 64, 2 * (2 * 16 + 2 * 4)),
    ],
)
def test_the_size_is_that_of_codes_scales_and_zero_points(spec: QuantSpec, rows: int, columns: int, size: int) -> None:
    assert spec.bytes_for(rows, columns) == size


@pytest.mark.parametrize("spec", [{"block_size": 32}, {"offsets": "affine"}, {"offsets": "zero_points"}])
def test_floats_have_neither_blocks_nor_offsets(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="floats"):
        QuantSpec(32, **spec)
