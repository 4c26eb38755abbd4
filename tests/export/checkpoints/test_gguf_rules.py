"""Settings that transformers writes in another way, one case each; golden files cover what they hold."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import CheckpointError, CorruptCheckpoint, ShapeMismatch, UnsupportedCheckpoint
from export.checkpoints import open_checkpoint
from tests.export.checkpoints import raw_gguf as raw


def settings(name: str, *more: bytes, epsilon: str = "rms", layers: int = 6) -> list[bytes]:
    """What every architecture needs, and `more`, whose keys are without the architecture's name."""
    key = "layer_norm_rms_epsilon" if epsilon == "rms" else "layer_norm_epsilon"
    return [
        raw.string("general.architecture", name),
        raw.u32(f"{name}.block_count", layers),
        raw.u32(f"{name}.embedding_length", 32),
        raw.u32(f"{name}.feed_forward_length", 8),
        raw.u32(f"{name}.attention.head_count", 4),
        raw.u32(f"{name}.context_length", 256),
        raw.f32(f"{name}.attention.{key}", 1e-6),
        raw.strings("tokenizer.ggml.tokens", ["a", "b", "c"]),
        *more,
    ]


def flags(key: str, *values: bool) -> bytes:
    return raw.array(key, raw.BOOL, len(values), bytes(values))


def opened(folder: Path, entries: list[bytes], tensors: dict[str, Any] | None = None) -> dict[str, object]:
    """The configuration of a file with `tensors`, which are lists of numbers."""
    described, data = [], b""
    for name, values in (tensors or {}).items():
        floats = np.asarray(values, "<f4")
        described.append(raw.tensor(name, floats.shape[::-1], offset=len(data)))
        data += floats.tobytes() + bytes(-floats.nbytes % 32)
    path = folder / "model.gguf"
    path.write_bytes(raw.header(entries, described, data=data))
    with open_checkpoint(path) as checkpoint:
        return dict(checkpoint.config)


LOCAL, WIDE = "sliding_attention", "full_attention"
WINDOWS: dict[str, tuple[list[bytes], int | None, list[str]]] = {
    "gemma2, every second": (settings("gemma2", layers=3), 4096, [LOCAL, WIDE, LOCAL]),
    "gemma3, every sixth": (settings("gemma3", raw.u32("gemma3.attention.sliding_window", 9)), 9, [LOCAL] * 5 + [WIDE]),
    "gemma3 without a window": (settings("gemma3", layers=2), None, [WIDE, WIDE]),
    "another period": (
        settings(
            "gemma3",
            raw.u32("gemma3.attention.sliding_window", 9),
            raw.u32("gemma3.attention.sliding_window_pattern", 2),
            layers=4,
        ),
        9,
        [LOCAL, WIDE, LOCAL, WIDE],
    ),
    "layer by layer": (
        settings(
            "gemma3",
            raw.u32("gemma3.attention.sliding_window", 9),
            flags("gemma3.attention.sliding_window_pattern", False, True),
            layers=2,
        ),
        9,
        [WIDE, LOCAL],
    ),
}


@pytest.mark.parametrize(("entries", "window", "kinds"), WINDOWS.values(), ids=WINDOWS.keys())
def test_layers_see_the_window_or_everything(
    entries: list[bytes], window: int | None, kinds: list[str], tmp_path: Path
) -> None:
    config = opened(tmp_path, entries)
    assert (config["sliding_window"], config["layer_types"]) == (window, kinds)


def test_a_window_of_no_tokens_is_none(tmp_path: Path) -> None:
    assert opened(tmp_path, settings("phi3", raw.u32("phi3.attention.sliding_window", 0)))["sliding_window"] is None


@pytest.mark.parametrize(("layers", "expected"), [(26, 16), (46, 8)])
def test_the_largest_gemma_2_scales_attention_in_its_own_way(layers: int, expected: int, tmp_path: Path) -> None:
    entries = settings("gemma2", raw.u32("gemma2.attention.key_length", 16), layers=layers)
    assert opened(tmp_path, entries)["query_pre_attn_scalar"] == expected


@pytest.mark.parametrize(("dim", "head_dim"), [(2, 8), (32, 80), (6, 22), (20, 96), (48, 128), (58, 96)])
def test_the_share_of_a_head_that_is_rotated_comes_out_whole(dim: int, head_dim: int, tmp_path: Path) -> None:
    entries = settings("nemotron", epsilon="layer")
    entries += [
        raw.u32("nemotron.attention.key_length", head_dim),
        raw.u32("nemotron.attention.value_length", head_dim),
    ]
    entries += [raw.u32("nemotron.rope.dimension_count", dim)]
    share = opened(tmp_path, entries)["partial_rotary_factor"]
    assert isinstance(share, float)
    assert int(share * head_dim) == dim
    assert share == pytest.approx(dim / head_dim)


def test_yarn_is_passed_on(tmp_path: Path) -> None:
    more = [
        raw.string("qwen2.rope.scaling.type", "yarn"),
        raw.f32("qwen2.rope.scaling.factor", 4),
        raw.u32("qwen2.rope.scaling.original_context_length", 64),
    ]
    assert opened(tmp_path, settings("qwen2", *more))["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }


SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"


@pytest.mark.parametrize(("attention", "said"), [(1.1547005, {}), (1.5, {"attention_factor": 1.5})])
def test_longrope_says_its_attention_factor_only_if_it_is_not_the_usual_one(
    attention: float, said: dict[str, float], tmp_path: Path
) -> None:
    more = [
        raw.u32("phi3.rope.scaling.original_context_length", 64),
        raw.f32("phi3.rope.scaling.attn_factor", attention),
    ]
    config = opened(tmp_path, settings("phi3", *more), {SHORT: [1, 2, 3, 4], LONG: [5, 6, 7, 8]})
    assert config["rope_scaling"] == {
        "rope_type": "longrope",
        "short_factor": [1.0, 2.0, 3.0, 4.0],
        "long_factor": [5.0, 6.0, 7.0, 8.0],
        **said,
    }


def test_every_fourth_layer_of_smollm3_has_no_positions(tmp_path: Path) -> None:
    assert opened(tmp_path, settings("smollm3"))["no_rope_layers"] == [1, 1, 1, 0, 1, 1]


def test_granite_scales_attention_as_usual_where_the_file_is_silent(tmp_path: Path) -> None:
    config = opened(tmp_path, settings("granite"))
    assert config["attention_multiplier"] == pytest.approx(8**-0.5)
    assert (config["embedding_multiplier"], config["residual_multiplier"], config["logits_scaling"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("normed", [False, True])
def test_stablelm_is_parallel_if_it_has_no_second_norm(normed: bool, tmp_path: Path) -> None:
    tensors = {"blk.0.ffn_norm.weight": [1] * 32} if normed else {}
    assert opened(tmp_path, settings("stablelm", epsilon="layer"), tensors)["use_parallel_residual"] is not normed


def test_stacked_norms_of_heads_are_shown_one_by_one(tmp_path: Path) -> None:
    values = np.arange(32, dtype=np.float32).reshape(4, 8)
    path = tmp_path / "model.gguf"
    tensor = raw.tensor("blk.3.attn_q_norm.weight", (8, 4))
    path.write_bytes(raw.header(settings("stablelm", epsilon="layer"), [tensor], data=values.tobytes()))
    with open_checkpoint(path) as checkpoint:
        names = [f"model.layers.3.self_attn.q_layernorm.norms.{head}.weight" for head in range(4)]
        assert list(checkpoint.names()) == names
        for name, row in zip(names, values, strict=True):
            assert checkpoint.names()[name].shape == (8,)
            np.testing.assert_array_equal(checkpoint.tensor(name), row)
            np.testing.assert_array_equal(checkpoint.rows(name, 2, 5), row[2:5])


BAD: dict[str, tuple[type[CheckpointError], list[bytes], dict[str, Any]]] = {
    "alibi of another steepness": (
        UnsupportedCheckpoint,
        settings("jais", raw.f32("jais.attention.max_alibi_bias", 4), epsilon="layer"),
        {},
    ),
    "one of two tables": (UnsupportedCheckpoint, settings("phi3"), {SHORT: [1] * 4}),
    "tables of another size": (UnsupportedCheckpoint, settings("phi3"), {SHORT: [1] * 4, LONG: [1] * 5}),
    "a table with a hole": (CorruptCheckpoint, settings("phi3"), {SHORT: [1] * 4, LONG: [1, float("nan"), 1, 1]}),
    "a pattern for fewer layers": (
        CorruptCheckpoint,
        settings("gemma2", flags("gemma2.attention.sliding_window_pattern", True)),
        {},
    ),
    "a pattern of numbers": (
        UnsupportedCheckpoint,
        settings("gemma2", raw.array("gemma2.attention.sliding_window_pattern", raw.U32, 1, struct.pack("<I", 2))),
        {},
    ),
    "heads that do not share evenly": (
        ShapeMismatch,
        settings("falcon", raw.u32("falcon.attention.head_count_kv", 3), epsilon="layer"),
        {"blk.0.attn_qkv.weight": [[0] * 32] * 80},
    ),
    "a stack of norms that is none": (
        ShapeMismatch,
        settings("stablelm", epsilon="layer"),
        {"blk.0.attn_q_norm.weight": [1] * 8},
    ),
    "heads of another width than the architecture has": (
        UnsupportedCheckpoint,
        settings("qwen2", raw.u32("qwen2.attention.key_length", 16)),
        {},
    ),
}


@pytest.mark.parametrize(("error", "entries", "tensors"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_followed_is_refused(
    error: type[CheckpointError], entries: list[bytes], tensors: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(error):
        opened(tmp_path, entries, tensors)
