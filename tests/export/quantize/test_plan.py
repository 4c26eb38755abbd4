from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.quant import FLOAT, Precision, QuantSpec
from export.quantize import codec
from export.quantize.plan import Recipe, plan, quantise
from tests import tiny
from tests.export.exports import export_tiny, opened

INT4, INT8 = QuantSpec(4, 32), QuantSpec(8, 32)
TWIN = QuantSpec(4, 32, twin=True)
AFFINE = QuantSpec(4, 32, "affine")


@pytest.mark.parametrize(
    ("stored", "precision", "spec", "method"),
    [
        ("Q4_0", "int4", INT4, "keep"),
        ("Q4_1", "int4", AFFINE, "keep"),
        ("Q8_0", "int8", INT8, "keep"),
        ("Q8_0", "int4", TWIN, "round"),
        ("Q4_0", "int8", INT8, "round"),
        ("Q5_1", "int4", TWIN, "round"),
        ("F16", "int4", TWIN, "round"),
        ("Q4_1", "fp32", FLOAT, "float"),
    ],
)
def test_a_matrix_keeps_its_blocks_where_an_operator_has_their_layout(
    stored: str, precision: Precision, spec: QuantSpec, method: str, tmp_path: Path
) -> None:
    with opened(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type=stored)) as (arch, weights):
        found = plan(arch, Recipe(precision), weights)
    for name in ("layers.0.qkv", "layers.1.o", "layers.0.gate_up", "layers.1.down"):
        assert (found[name].spec, found[name].method) == (spec, method)


def mixed_file(folder: Path, types: dict[str, str]) -> Path:
    """The tiny model in Q4_0, some tensors in other types."""
    retype(tiny.write_gguf(folder / "tiny.gguf", tensor_type="Q4_0"), folder / "mixed.gguf", types)
    return folder / "mixed.gguf"


def test_what_a_four_bit_file_stores_finer_stays_finer(tmp_path: Path) -> None:
    """Q and K keep their blocks, V keeps its own: they are stored apart."""
    types = {"blk.0.attn_v.weight": "Q8_0", "blk.1.ffn_down.weight": "Q5_1", "blk.1.attn_output.weight": "F16"}
    with opened(mixed_file(tmp_path, types)) as (arch, weights):
        found = plan(arch, Recipe("int4"), weights)
        assert "layers.0.qkv" not in found
        expected = {
            "layers.0.q": (INT4, "keep"),
            "layers.0.k": (INT4, "keep"),
            "layers.0.v": (INT8, "keep"),
            "layers.0.gate_up": (INT4, "keep"),
            "layers.1.qkv": (INT4, "keep"),
            "layers.1.down": (QuantSpec(8, 32, "affine"), "keep"),
            "layers.1.o": (TWIN, "round"),
        }
        assert {name: (found[name].spec, found[name].method) for name in expected} == expected
        for name in ("layers.0.q", "layers.0.k", "layers.0.v"):
            stored = codec.dequantise(quantise(found[name], weights))
            np.testing.assert_allclose(stored, weights.tensor(f"{name}.weight"), rtol=1e-6)


def test_in_a_file_that_is_not_of_four_bits_nothing_is_finer(tmp_path: Path) -> None:
    path = tmp_path / "mixed.gguf"
    retype(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="Q8_0"), path, {"blk.0.attn_v.weight": "Q4_0"})
    with opened(path) as (arch, weights):
        found = plan(arch, Recipe("int4"), weights)
    assert (found["layers.0.v"].spec, found["layers.0.v"].method) == (INT4, "keep")
    assert {(found[name].spec, found[name].method) for name in ("layers.0.q", "layers.0.k", "layers.1.qkv")} == {
        (TWIN, "round")
    }


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_parts_stored_apart_compute_the_same_as_their_checkpoint(precision: Precision, tmp_path: Path) -> None:
    source = mixed_file(tmp_path, {"blk.0.attn_v.weight": "Q8_0", "blk.1.ffn_up.weight": "Q8_0"})
    manifest = export_tiny(source, tmp_path / "out", precision)
    assert {"layers.0.v", "layers.1.up"} <= set(manifest.quant.weights)
    assert manifest.quality["verification_error"] < 1e-4


def test_the_method_goes_to_what_is_rounded_to_four_bits(tmp_path: Path) -> None:
    with opened(mixed_file(tmp_path, {"blk.0.attn_v.weight": "F16", "blk.0.ffn_down.weight": "Q8_0"})) as (
        arch,
        weights,
    ):
        found = plan(arch, Recipe("int4", 64, "gptq"), weights)
    assert (found["layers.0.v"].spec, found["layers.0.v"].method) == (QuantSpec(4, 64, twin=True), "gptq")
    assert [name for name, matrix in found.items() if matrix.method == "gptq"] == ["layers.0.v"]
    assert found["embed"].method == "round"


@pytest.mark.parametrize(("precision", "spec"), [("int4", QuantSpec(4, 128, twin=True)), ("int8", QuantSpec(8, 128))])
def test_the_block_size_is_that_of_layers(precision: Precision, spec: QuantSpec, tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny")) as (arch, weights):
        found = plan(arch, Recipe(precision, 128), weights)
    assert {matrix.spec for name, matrix in found.items() if name.startswith("layers.")} == {spec}
    assert found["embed"].spec == QuantSpec(8, 64)


def retype(source: Path, target: Path, types: dict[str, str]) -> None:
    """Copy a GGUF file with some tensors stored in another type."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        kind = gguf.GGMLQuantizationType[types.get(tensor.name, tensor.tensor_type.name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("hidden", "spec"),
    [(64, QuantSpec(8, 64)), (96, QuantSpec(8, 32)), (48, QuantSpec(8, 16)), (40, FLOAT)],
    ids=["blocks of 64", "of 32", "of 16", "no whole blocks: float"],
)
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_embedding_and_head_are_int8_in_the_largest_whole_blocks(
    hidden: int, spec: QuantSpec, precision: Precision, tmp_path: Path
) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(hidden=hidden))) as (arch, weights):
        found = plan(arch, Recipe(precision), weights)
    assert found["embed"].spec == found["lm_head"].spec == spec
    assert found["embed"].method == ("float" if spec == FLOAT else "round")


def test_a_tied_model_has_no_matrix_for_its_head(tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(tied=True))) as (arch, weights):
        assert "lm_head" not in plan(arch, Recipe("int4"), weights)


def test_kept_codes_are_the_file_s_own(tmp_path: Path) -> None:
    with opened(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="Q4_0")) as (arch, weights):
        stored = quantise(plan(arch, Recipe("int4"), weights)["layers.0.gate_up"], weights)
        values = [weights.tensor(f"layers.0.{part}.weight") for part in ("gate", "up")]
    np.testing.assert_allclose(codec.dequantise(stored), np.concatenate(values), rtol=1e-6)


def test_a_matrix_that_is_rounded_in_pieces_equals_one_rounded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny")) as (arch, weights):
        planned = plan(arch, Recipe("int4"), weights)["layers.0.qkv"]
        whole = quantise(planned, weights)
        monkeypatch.setattr("export.quantize.plan._CHUNK_VALUES", 5 * 64)
        pieces = quantise(planned, weights)
    np.testing.assert_array_equal(whole.packed, pieces.packed)
    np.testing.assert_array_equal(whole.scales, pieces.scales)


@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
@pytest.mark.parametrize("stored", ["F16", "Q4_1"])
def test_bytes_of_the_plan_are_the_bytes_that_are_written(stored: str, precision: Precision, tmp_path: Path) -> None:
    source = tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type=stored)
    with opened(source) as (arch, weights):
        planned = plan(arch, Recipe(precision), weights)
    export_tiny(source, tmp_path / "out", precision)
    graph = onnx.load(str(tmp_path / "out" / contract.MODEL_FILE), load_external_data=False).graph
    written = dict.fromkeys(planned, 0)
    for tensor in graph.initializer:
        name, _, part = tensor.name.rpartition(".")
        if name in written and part in ("weight", "scales", "zero_points"):
            written[name] += int(next(entry.value for entry in tensor.external_data if entry.key == "length"))
    assert written == {name: matrix.bytes for name, matrix in planned.items()}
