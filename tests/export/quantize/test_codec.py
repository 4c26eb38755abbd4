import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgekit.quant import QuantSpec
from edgekit.twin.codes import unpack
from export.quantize import codec
from tests.export.exports import session

MICROSOFT = helper.make_opsetid("com.microsoft", 1)
Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]


def random_codes(rows: int, columns: int, bits: int, seed: int) -> codec.Codes:
    half = 1 << (bits - 1)
    return np.random.default_rng(seed).integers(-half, half, (rows, columns)).astype(np.int8)


def random_scales(rows: int, blocks: int, seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(0.01, 0.1, (rows, blocks)).astype(np.float32)


def affine_matrix(columns: int, seed: int = 0) -> tuple[codec.QuantisedMatrix, Floats, Floats]:
    """A matrix as a Q4_1 file holds it, its scales, and the values that it means."""
    spec, rows = QuantSpec(4, 32, "affine"), 12
    codes, scales = random_codes(rows, columns, 4, seed), random_scales(rows, columns // 32, seed)
    constants = scales * np.random.default_rng(seed + 1).uniform(-6.5, 7.5, scales.shape).astype(np.float32)
    meant = codes.astype(np.float32) * np.repeat(scales, 32, 1) + np.repeat(constants, 32, 1)
    return codec.store_affine(codes, scales, constants, spec), scales, meant


@given(st.lists(st.integers(0, 15), min_size=1, max_size=70))
def test_nibbles_survive_packing(values: list[int]) -> None:
    packed = codec.pack(np.array(values, np.uint8), 4)
    assert packed.nbytes == (len(values) + 1) // 2
    assert unpack(packed, 4, len(values)).tolist() == values


@given(st.lists(st.integers(0, 255), min_size=1, max_size=70))
def test_bytes_survive_packing(values: list[int]) -> None:
    assert unpack(codec.pack(np.array(values, np.uint8), 8), 8, len(values)).tolist() == values


def test_the_low_nibble_comes_first() -> None:
    assert codec.pack(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]


@given(
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64]),
    rows=st.integers(1, 5),
    columns=st.integers(1, 150),
    seed=st.integers(0, 1000),
)
def test_symmetric_storage_means_scale_times_code(bits: int, block: int, rows: int, columns: int, seed: int) -> None:
    codes, scales = random_codes(rows, columns, bits, seed), random_scales(rows, -(-columns // block), seed)
    matrix = codec.store_symmetric(codes, scales, QuantSpec(bits, block))
    assert matrix.rows == rows
    np.testing.assert_array_equal(codec.dequantise(matrix), codes * np.repeat(scales, block, 1)[:, :columns])


@pytest.mark.parametrize("columns", [32, 96, 1024, 1056])
def test_affine_storage_means_scale_times_code_plus_constant(columns: int) -> None:
    matrix, scales, meant = affine_matrix(columns)
    error = np.abs(codec.dequantise(matrix) - meant).reshape(12, -1, 32).max(-1)
    assert (error <= scales.max() / 20).all()
    assert error.max() > 0, "constants that are no multiple of the scale must have been in the table"


def test_a_block_far_from_zero_does_not_coarsen_its_neighbours() -> None:
    spec, codes = QuantSpec(4, 32, "affine"), random_codes(1, 128, 4, 0)
    scales = np.full((1, 4), 0.01, np.float32)
    constants = np.array([[0.013, 5.0, -0.021, 0.034]], np.float32)  # the second block is all near 5
    meant = codes * np.repeat(scales, 32, 1) + np.repeat(constants, 32, 1)
    error = np.abs(codec.dequantise(codec.store_affine(codes, scales, constants, spec)) - meant)
    assert error[:, 32:64].max() < 5.2 / 15
    assert np.delete(error, np.s_[32:64], axis=1).max() < 0.01 / 20


def test_a_constant_block_is_kept() -> None:
    codes, nothing = np.zeros((1, 64), np.int8), np.zeros((1, 2), np.float32)
    constants = np.array([[0.5, 0.0]], np.float32)
    matrix = codec.store_affine(codes, nothing, constants, QuantSpec(4, 32, "affine"))
    np.testing.assert_allclose(codec.dequantise(matrix), np.repeat(constants, 32, 1), atol=1e-6)


def test_an_affine_matrix_needs_whole_blocks() -> None:
    one = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match="33 columns"):
        codec.store_affine(np.zeros((1, 33), np.int8), one, one, QuantSpec(4, 32, "affine"))


def zero_point_matrix(columns: int, bits: int, block: int) -> tuple[codec.QuantisedMatrix, Floats]:
    """A matrix as GPTQ and AWQ hold it, and the values that it means."""
    half, blocks = 1 << (bits - 1), columns // block
    codes, scales = random_codes(12, columns, bits, 0), random_scales(12, blocks, 1)
    zeros = np.random.default_rng(2).integers(-half, half, scales.shape)
    zeros[0, 0], zeros[1, 0] = -half, half - 1  # both ends
    meant = (codes - np.repeat(zeros, block, 1)) * np.repeat(scales, block, 1)
    spec = QuantSpec(bits, block, "zero_points")
    offsets = (-zeros * scales).astype(np.float32)
    return codec.store_with_zero_points(codes, scales, offsets, spec), meant.astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("columns", "block"), [(96, 32), (128, 64), (128, 128), (48, 16)])
def test_zero_points_keep_the_values_exactly(columns: int, block: int, bits: int) -> None:
    matrix, meant = zero_point_matrix(columns, bits, block)
    np.testing.assert_array_equal(codec.dequantise(matrix), meant)
    assert matrix.zero_points is not None
    assert matrix.packed.nbytes + matrix.scales.nbytes + matrix.zero_points.nbytes == matrix.spec.bytes_for(12, columns)
    x = np.random.default_rng(3).normal(size=(5, columns)).astype(np.float32)
    expected = x @ meant.T
    np.testing.assert_allclose(matmul(matrix, x), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("offset", [0.5, 0.01, 9.0, -8.0], ids=["half", "a hundredth", "above 8", "below -7"])
def test_an_offset_that_is_no_zero_point_is_refused(offset: float) -> None:
    codes, scales = random_codes(2, 64, 4, 0), random_scales(2, 2, 0)
    offsets = np.zeros_like(scales)
    offsets[1, 1] = scales[1, 1] * np.float32(offset)
    with pytest.raises(ValueError, match="not a zero point"):
        codec.store_with_zero_points(codes, scales, offsets, QuantSpec(4, 32, "zero_points"))


def test_a_block_of_no_scale_is_zero_under_zero_points() -> None:
    codes, scales = random_codes(2, 64, 4, 0), random_scales(2, 2, 0)
    scales[0, 1] = 0
    matrix = codec.store_with_zero_points(codes, scales, np.zeros_like(scales), QuantSpec(4, 32, "zero_points"))
    assert not codec.dequantise(matrix)[0, 32:].any()


def matmul(matrix: codec.QuantisedMatrix, x: Floats) -> Floats:
    """What onnxruntime's MatMulNBits computes from the stored bytes, activations in float."""
    spec = matrix.spec
    arrays: Arrays = {"weight": matrix.packed, "scales": matrix.scales}
    if matrix.zero_points is not None:
        arrays["zero_points"] = matrix.zero_points
    node = helper.make_node(
        "MatMulNBits",
        ["x", *arrays],
        ["y"],
        domain="com.microsoft",
        K=x.shape[1],
        N=matrix.rows,
        bits=spec.bits,
        block_size=spec.block_size,
        accuracy_level=1,
    )
    return run_node([node], arrays, {"x": x})


def run_node(nodes: list[NodeProto], arrays: Arrays, feed: Arrays) -> Floats:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), MICROSOFT], ir_version=10)
    found: Floats = session(model).run(None, feed)[0]
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("columns", [128, 200])
def test_onnxruntime_multiplies_what_symmetric_bytes_mean(bits: int, block: int, columns: int) -> None:
    codes, scales = random_codes(24, columns, bits, 1), random_scales(24, -(-columns // block), 2)
    matrix = codec.store_symmetric(codes, scales, QuantSpec(bits, block))
    x = np.random.default_rng(3).normal(size=(5, columns)).astype(np.float32)
    expected = x @ codec.stored_values(matrix).T
    np.testing.assert_allclose(matmul(matrix, x), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("columns", [32, 96, 1056])
def test_onnxruntime_multiplies_what_affine_bytes_mean(columns: int) -> None:
    matrix, _, _ = affine_matrix(columns)
    x = np.random.default_rng(3).normal(size=(5, matrix.spec.columns_stored(columns))).astype(np.float32)
    expected = x @ codec.stored_values(matrix).T
    np.testing.assert_allclose(matmul(matrix, x), expected, atol=2e-5 * np.abs(expected).max())


def test_block_means_carry_the_constants() -> None:
    matrix, _, _ = affine_matrix(96)
    x = np.random.default_rng(3).normal(size=(5, 96)).astype(np.float32)
    with_means = np.concatenate([x, codec.as_blocks(x, 32).mean(-1)], axis=1)
    expected = x @ codec.dequantise(matrix).T
    np.testing.assert_allclose(matmul(matrix, with_means), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 64])
def test_onnxruntime_looks_up_the_rows_that_the_bytes_mean(bits: int, block: int) -> None:
    codes, scales = random_codes(20, 128, bits, 1), random_scales(20, 128 // block, 2)
    matrix = codec.store_symmetric(codes, scales, QuantSpec(bits, block))
    node = helper.make_node(
        "GatherBlockQuantized",
        ["rows", "ids", "scales"],
        ["y"],
        domain="com.microsoft",
        gather_axis=0,
        quantize_axis=1,
        block_size=block,
        bits=bits,
    )
    ids = np.array([[3, 19, 0, 3]])
    found = run_node([node], {"rows": matrix.packed.reshape(20, -1), "scales": scales}, {"ids": ids})
    np.testing.assert_allclose(found, codec.dequantise(matrix)[ids], rtol=1e-6)
