"""GPTQ and AWQ layers: the values are those of the formats' definition, and the codes are taken over."""

import json
import logging
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.errors import CheckpointError, CorruptCheckpoint, MissingTensor, UnsupportedCheckpoint
from export.checkpoints import Blocks, Checkpoint, open_checkpoint
from export.checkpoints.packed import packing_of
from tests import tiny
from tests.export.checkpoints.packing import Layer, pack_across, write_folder
from tests.export.exports import Decoder, error_of, export_tiny

Tensors = dict[str, NDArray[Any]]
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
NAME = "model.layers.0.mlp.down_proj"


@dataclass(frozen=True)
class Case:
    """A layer, how it is stored, and the blocks that it must become."""

    name: str
    layer: Layer
    settings: dict[str, object]
    dtype: str
    block_size: int | None

    def tensors(self) -> Tensors:
        if self.settings["quant_method"] == "awq":
            return self.layer.awq(NAME)
        return self.layer.gptq(NAME, v2=self.settings.get("checkpoint_format") == "gptq_v2")


SHUFFLED = np.random.default_rng(5).permutation(np.repeat([0, 1, 2], 32))
CASES = (
    Case("gptq", Layer(96, 40), GPTQ, "GPTQ4", 32),
    Case("gptq_v2", Layer(96, 40), GPTQ | {"checkpoint_format": "gptq_v2"}, "GPTQ4", 32),
    Case("symmetric", Layer(128, 16, group=64, symmetric=True), GPTQ | {"group_size": 64, "sym": True}, "GPTQ4", 64),
    Case("groups of 128", Layer(256, 8, group=128), GPTQ | {"group_size": 128}, "GPTQ4", 128),
    Case("groups of 512", Layer(1024, 8, group=512), GPTQ | {"group_size": 512}, "GPTQ4", 128),
    Case("one group per output", Layer(160, 16, group=-1), GPTQ | {"group_size": -1}, "GPTQ4", 32),
    Case("a last group of half the length", Layer(160, 8, group=64), GPTQ | {"group_size": 64}, "GPTQ4", 32),
    Case("a width of no block", Layer(40, 8, group=-1), GPTQ | {"group_size": -1}, "GPTQ4", None),
    Case("8 bits", Layer(64, 12, bits=8), GPTQ | {"bits": 8}, "GPTQ8", 32),
    Case("8 bits, symmetric", Layer(64, 12, bits=8, symmetric=True), GPTQ | {"bits": 8}, "GPTQ8", 32),
    Case("sorted columns", Layer(96, 16, index=SHUFFLED), GPTQ | {"desc_act": True}, "GPTQ4", None),
    Case("sorted groups", Layer(96, 16, index=np.repeat([2, 0, 1], 32)), GPTQ | {"desc_act": True}, "GPTQ4", 32),
    Case("awq", Layer(96, 40), AWQ, "AWQ4", 32),
    Case("awq, groups of 128", Layer(256, 16, group=128), AWQ | {"group_size": 128, "version": "GEMM"}, "AWQ4", 128),
    Case("awq, one group per output", Layer(64, 16, group=-1), AWQ | {"group_size": -1}, "AWQ4", 64),
)  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def opened(case: Case, folder: Path) -> Checkpoint:
    return open_checkpoint(write_folder(folder / "hf", case.tensors(), case.settings))


def values_of(blocks: Blocks) -> NDArray[np.float32]:
    """What blocks mean."""
    values = blocks.codes.astype(np.float32) * np.repeat(blocks.scales, blocks.block_size, axis=1)
    return values if blocks.offsets is None else values + np.repeat(blocks.offsets, blocks.block_size, axis=1)


@every_case
def test_a_packed_layer_is_one_matrix_of_the_defined_values(case: Case, tmp_path: Path) -> None:
    with opened(case, tmp_path) as checkpoint:
        info = checkpoint.names()[f"{NAME}.weight"]
        assert list(checkpoint.names()) == [f"{NAME}.weight"]
        assert (info.shape, info.dtype) == ((case.layer.outputs, case.layer.inputs), case.dtype)
        assert info.block_size == case.block_size
        np.testing.assert_array_equal(checkpoint.tensor(f"{NAME}.weight"), case.layer.weight())


@every_case
def test_any_rows_are_those_of_the_whole(case: Case, tmp_path: Path) -> None:
    whole = case.layer.weight()
    with opened(case, tmp_path) as checkpoint:
        for start, stop in [(0, 1), (3, 3), (1, 8), (5, 7), (case.layer.outputs - 3, case.layer.outputs)]:
            np.testing.assert_array_equal(checkpoint.rows(f"{NAME}.weight", start, stop), whole[start:stop])
        for start, stop in [(-1, 1), (2, 1), (0, case.layer.outputs + 1)]:
            with pytest.raises(ValueError, match="rows"):
                checkpoint.rows(f"{NAME}.weight", start, stop)


@every_case
def test_blocks_hold_the_stored_codes_and_mean_the_same_values(case: Case, tmp_path: Path) -> None:
    layer = case.layer
    with opened(case, tmp_path) as checkpoint:
        blocks = checkpoint.blocks(f"{NAME}.weight")
    if case.block_size is None:
        assert blocks is None
        return
    assert blocks is not None
    assert (blocks.bits, blocks.block_size) == (layer.bits, case.block_size)
    np.testing.assert_array_equal(blocks.codes, (layer.codes - (1 << layer.bits) // 2).T.astype(np.int8))
    assert blocks.scales.shape == (layer.outputs, layer.inputs // case.block_size)
    assert (blocks.offsets is None) == layer.symmetric
    np.testing.assert_array_equal(values_of(blocks), layer.weight())  # scales are halves: every product is exact


def test_columns_that_no_operator_holds_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = Layer(96, 16, index=SHUFFLED).gptq(NAME) | Layer(96, 16).gptq("other")
    with caplog.at_level(logging.WARNING), open_checkpoint(write_folder(tmp_path, tensors, GPTQ | {"desc_act": True})):
        assert "1 of 2 packed matrices" in caplog.text


@given(
    st.sampled_from(["gptq", "gptq_v2", "awq"]), st.sampled_from([32, 64, -1]), st.integers(1, 4), st.integers(1, 3),
    st.booleans(), st.integers(0, 1 << 32),
)  # fmt: skip
def test_every_layer_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    layout: str,
    group: int,
    groups: int,
    words: int,
    symmetric: bool,
    seed: int,
) -> None:
    layer = Layer(max(group, 32) * groups, 8 * words, group=group, symmetric=symmetric, seed=seed)
    settings: dict[str, object] = {"quant_method": layout.removesuffix("_v2"), "bits": 4, "group_size": group}
    settings |= {} if layout == "awq" else {"checkpoint_format": layout}
    case = Case(layout, layer, settings, "", None)
    with opened(case, tmp_path_factory.mktemp("packed")) as checkpoint:
        blocks = checkpoint.blocks(f"{NAME}.weight")
        assert blocks is not None
        np.testing.assert_array_equal(checkpoint.tensor(f"{NAME}.weight"), layer.weight())
        np.testing.assert_array_equal(values_of(blocks), layer.weight())


def test_layers_without_an_index_have_their_groups_in_order(tmp_path: Path) -> None:
    layer = Layer(96, 16)
    tensors = layer.gptq(NAME)
    del tensors[f"{NAME}.g_idx"]
    with open_checkpoint(write_folder(tmp_path, tensors, GPTQ)) as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensor(f"{NAME}.weight"), layer.weight())


def test_what_is_not_packed_stays_as_it_is(tmp_path: Path) -> None:
    norm, bias = np.arange(4, dtype=np.float32), np.arange(16, dtype=np.float16)
    tensors = Layer(96, 16).gptq(NAME) | {"model.norm.weight": norm, f"{NAME}.bias": bias}
    with open_checkpoint(write_folder(tmp_path, tensors, GPTQ)) as checkpoint:
        assert {name: info.dtype for name, info in checkpoint.names().items()} == {
            f"{NAME}.weight": "GPTQ4", f"{NAME}.bias": "float16", "model.norm.weight": "float32",
        }  # fmt: skip
        np.testing.assert_array_equal(checkpoint.tensor("model.norm.weight"), norm)
        np.testing.assert_array_equal(checkpoint.rows(f"{NAME}.bias", 2, 5), bias[2:5])
        assert checkpoint.blocks("model.norm.weight") is None


def test_autogptq_s_own_file_name_is_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, Layer(96, 16).gptq(NAME), GPTQ)
    (folder / "model.safetensors").rename(folder / "gptq_model-4bit-32g.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert f"{NAME}.weight" in checkpoint.names()


def test_some_rows_of_a_large_layer_take_little_memory(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {}, GPTQ | {"group_size": 128})
    inputs, outputs = 1 << 16, 1 << 13
    shapes = {
        "qweight": ("I32", (inputs // 8, outputs), 4),
        "qzeros": ("I32", (inputs // 128, outputs // 8), 4),
        "scales": ("F16", (inputs // 128, outputs), 2),
    }
    entries, end = {}, 0
    for part, (dtype, shape, size) in shapes.items():
        start, end = end, end + shape[0] * shape[1] * size
        entries[f"{NAME}.{part}"] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + end)  # 275 MB, sparse
    tracemalloc.start()
    try:
        with open_checkpoint(folder) as checkpoint:
            assert checkpoint.rows(f"{NAME}.weight", outputs - 4, outputs).shape == (4, inputs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


# --- whole models ---------------------------------------------------------------------------


def packed_model(layout: str) -> tuple[Tensors, dict[str, NDArray[np.float32]]]:
    """The tiny model with its linear layers packed, and the same with the values that they mean."""
    packed: Tensors = {}
    plain = dict(tiny.weights())
    for seed, (name, values) in enumerate(tiny.weights().items()):
        if "_proj" not in name:
            packed[name] = values
            continue
        prefix, layer = name.removesuffix(".weight"), Layer(values.shape[1], values.shape[0], seed=seed)
        packed |= layer.awq(prefix) if layout == "awq" else layer.gptq(prefix)
        plain[name] = layer.weight()
    return packed, plain


@pytest.mark.parametrize(("layout", "settings"), [("gptq", GPTQ), ("awq", AWQ)])
def test_a_packed_model_exports_like_the_floats_that_it_means(
    layout: str, settings: dict[str, object], tmp_path: Path
) -> None:
    packed, plain = packed_model(layout)
    one = export_tiny(write_folder(tmp_path / "packed", packed, settings), tmp_path / "one")
    other = export_tiny(tiny.write_hf_folder(tmp_path / "plain", values=plain), tmp_path / "other")
    ids = [5, 77, 210, 3, 98]
    found = Decoder(tmp_path / "one", one.arch).step(ids)
    assert error_of(found, Decoder(tmp_path / "other", other.arch).step(ids)) <= 1e-6


# --- refusals -------------------------------------------------------------------------------


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes'.*original checkpoint"),
    "fp8": ({"quant_method": "fp8"}, "'fp8'.*original checkpoint"),
    "no method": ({"load_in_8bit": True}, "does not name"),
    "3 bits": (GPTQ | {"bits": 3}, "3 bits"),
    "marlin": (GPTQ | {"checkpoint_format": "marlin"}, "'marlin'"),
    "gemv": (AWQ | {"version": "gemv"}, "'gemv'"),
    "awq of 8 bits": (AWQ | {"bits": 8}, "8 bits"),
    "awq without zero points": (AWQ | {"zero_point": False}, "without zero points"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_other_quantisations_are_refused_by_name(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=words):
        packing_of({"quantization_config": settings})


def test_compressed_tensors_are_refused_under_their_older_key() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="compressed-tensors"):
        packing_of({"compression_config": {"quant_method": "compressed-tensors"}})


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_no_quantisation_is_none(config: dict[str, object]) -> None:
    assert packing_of(config) is None


@pytest.mark.parametrize(
    "settings", ["gptq", GPTQ | {"bits": "four"}, GPTQ | {"group_size": 0}, GPTQ | {"group_size": -2}, [GPTQ]], ids=str
)
def test_settings_that_are_none_are_corrupt(settings: object) -> None:
    with pytest.raises(CorruptCheckpoint, match="quantization_config"):
        packing_of({"quantization_config": settings})


def replaced(part: str, values: NDArray[Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {f"{NAME}.{part}": values}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: values for name, values in tensors.items() if name != f"{NAME}.{part}"}


def index(*changed: int) -> NDArray[np.int32]:
    return np.array([*changed, *np.arange(len(changed), 96) // 32], np.int32)


BAD: dict[str, tuple[type[CheckpointError], str, Callable[[Tensors], Tensors]]] = {
    "no zero points": (MissingTensor, "qzeros", without("qzeros")),
    "no scales": (MissingTensor, "scales", without("scales")),
    "floats as words": (CorruptCheckpoint, "qweight is F32", replaced("qweight", np.zeros((12, 16), np.float32))),
    "words as scales": (CorruptCheckpoint, "scales is I32", replaced("scales", np.zeros((3, 16), np.int32))),
    "a vector of words": (CorruptCheckpoint, "qweight has the shape", replaced("qweight", np.zeros(12, np.int32))),
    "nothing in it": (CorruptCheckpoint, "qweight has the shape", replaced("qweight", np.zeros((0, 16), np.int32))),
    "a group too few": (CorruptCheckpoint, r"F16 \[2, 16\]", replaced("scales", np.ones((2, 16), np.float16))),
    "another layer's zero points": (CorruptCheckpoint, "qzeros is", replaced("qzeros", np.zeros((3, 4), np.int32))),
    "outputs in half a word": (CorruptCheckpoint, "whole words", replaced("qweight", np.zeros((12, 15), np.int32))),
    "an index of another width": (CorruptCheckpoint, r"g_idx is I32 \[95\]", replaced("g_idx", np.zeros(95, np.int32))),
    "a group that is not there": (CorruptCheckpoint, "3 groups", replaced("g_idx", index(3))),
    "a negative group": (CorruptCheckpoint, "3 groups", replaced("g_idx", index(-1))),
    "packed and plain": (CorruptCheckpoint, "twice", replaced("weight", np.zeros((16, 96), np.float32))),
    "nothing packed": (CorruptCheckpoint, "no tensor is packed", lambda _: {"a": np.zeros(1, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "damage"), BAD.values(), ids=BAD.keys())
def test_parts_that_contradict_each_other_are_refused(
    error: type[CheckpointError], words: str, damage: Callable[[Tensors], Tensors], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, damage(Layer(96, 16).gptq(NAME)), GPTQ)
    with pytest.raises(error, match=words):
        open_checkpoint(folder)


def test_sorted_columns_need_their_index(tmp_path: Path) -> None:
    tensors = without("g_idx")(Layer(96, 16).gptq(NAME))
    with pytest.raises(MissingTensor, match="g_idx"):
        open_checkpoint(write_folder(tmp_path, tensors, GPTQ | {"desc_act": True}))


def test_an_index_is_no_part_of_awq(tmp_path: Path) -> None:
    tensors = replaced("g_idx", index())(Layer(96, 16).awq(NAME))
    with pytest.raises(CorruptCheckpoint, match="AWQ"):
        open_checkpoint(write_folder(tmp_path, tensors, AWQ))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_that_is_no_number_is_refused_by_name(value: float, tmp_path: Path) -> None:
    scales = np.ones((3, 16), np.float16)
    scales[1, 3] = value
    tensors = replaced("scales", scales)(Layer(96, 16).gptq(NAME))
    with open_checkpoint(write_folder(tmp_path, tensors, GPTQ)) as checkpoint:
        for read in (checkpoint.tensor, checkpoint.blocks):
            with pytest.raises(CorruptCheckpoint, match="scales"):
                read(f"{NAME}.weight")
        assert checkpoint.rows(f"{NAME}.weight", 0, 3).shape == (3, 96)


def test_the_words_of_the_tests_are_those_of_the_definition() -> None:
    numbers = np.arange(8)[None]
    assert pack_across(numbers, 4).view(np.uint32) == 0x76543210
    assert pack_across(numbers, 4, (0, 2, 4, 6, 1, 3, 5, 7)).view(np.uint32) == 0x75316420
