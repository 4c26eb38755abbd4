"""A merged adapter: W + scaling * B A where it applies, the base everywhere else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from edgekit.errors import (
    AdapterMismatch,
    CheckpointError,
    CheckpointNotFound,
    CorruptCheckpoint,
    UnsupportedCheckpoint,
)
from export.checkpoints import open_checkpoint
from tests import tiny
from tests.export.checkpoints.packing import Layer, write_folder

Tensors = dict[str, NDArray[Any]]
QUERY = "model.layers.1.self_attn.q_proj"  # 64 x 64: square
DOWN = "model.layers.0.mlp.down_proj"  # 64 x 96
EMBEDDING = "model.embed_tokens"  # 320 x 64
HEAD = "lm_head"
CONFIG: dict[str, object] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", "target_modules": ["q_proj"]}
PREFIX = "base_model.model."


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).normal(0, 0.3, shape).astype(np.float32)


def low_rank(module: str, outputs: int, inputs: int, rank: int = 4) -> Tensors:
    """Tensors of one adapted linear layer, under PEFT's names."""
    return {
        f"{PREFIX}{module}.lora_A.weight": numbers(rank, inputs, seed=len(module)),
        f"{PREFIX}{module}.lora_B.weight": numbers(outputs, rank, seed=len(module)),
    }


def delta(tensors: Tensors, module: str) -> NDArray[np.float32]:
    """B A."""
    found: NDArray[np.float32] = tensors[f"{PREFIX}{module}.lora_B.weight"] @ tensors[f"{PREFIX}{module}.lora_A.weight"]
    return found


def write_adapter(folder: Path, tensors: Tensors, **changed: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_json(folder / "adapter_config.json", CONFIG | changed)
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "base")


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "tied", tiny.Config(tied=True))


def close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


BOTH = low_rank(QUERY, 64, 64) | low_rank(DOWN, 64, 96)
SCALINGS: dict[str, tuple[dict[str, object], float, float]] = {
    "alpha / rank": ({}, 1.5, 1.5),
    "rank-stabilised": ({"use_rslora": True}, 3.0, 3.0),
    "alpha of one layer by its end": ({"alpha_pattern": {"q_proj": 10}}, 2.5, 1.5),
    "alpha by the full name": ({"alpha_pattern": {DOWN: 2}}, 1.5, 0.5),
    "alpha by a pattern": ({"alpha_pattern": {r"layers\.\d+\.mlp\.(up|down)_proj": 2}}, 1.5, 0.5),
    "the first pattern counts": ({"alpha_pattern": {r".*_proj": 10, "q_proj": 2}}, 2.5, 2.5),
    "a part of a name is no name": ({"alpha_pattern": {"proj": 10}}, 1.5, 1.5),
    "ranks that agree": ({"r": 8, "lora_alpha": 12, "rank_pattern": {"q_proj": 4, "down_proj": 4}}, 3.0, 3.0),
}


@pytest.mark.parametrize(("changed", "query", "down"), SCALINGS.values(), ids=SCALINGS.keys())
def test_an_adapted_matrix_is_the_base_and_scaling_times_b_a(
    changed: dict[str, object], query: float, down: float, base: Path, tmp_path: Path
) -> None:
    weights = tiny.weights()
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", BOTH, **changed)) as merged:
        for module, scaling in ((QUERY, query), (DOWN, down)):
            name = f"{module}.weight"
            expected = weights[name] + scaling * delta(BOTH, module)
            assert merged.names()[name].dtype == "float32"
            close(merged.tensor(name), expected)
            close(merged.rows(name, 5, 21), expected[5:21])
            assert merged.rows(name, 3, 3).shape == (0, expected.shape[1])
        for name in set(weights) - {f"{QUERY}.weight", f"{DOWN}.weight"}:
            np.testing.assert_array_equal(merged.tensor(name), weights[name])
            np.testing.assert_array_equal(merged.rows(name, 1, 4), weights[name][1:4])


def test_stored_halves_are_merged_in_single_precision(tmp_path: Path) -> None:
    base = tiny.write_hf_folder(tmp_path / "base", dtype="float16")
    tensors = {name: values.astype(np.float16) for name, values in BOTH.items()}
    wide = {name: values.astype(np.float32) for name, values in tensors.items()}
    expected = tiny.weights()[f"{DOWN}.weight"].astype(np.float16).astype(np.float32) + 1.5 * delta(wide, DOWN)
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors)) as merged:
        close(merged.tensor(f"{DOWN}.weight"), expected)


def test_dora_gives_every_row_its_length(base: Path, tmp_path: Path) -> None:
    lengths = np.linspace(0.5, 2.0, 64, dtype=np.float32)
    tensors = low_rank(DOWN, 64, 96) | {f"{PREFIX}{DOWN}.lora_magnitude_vector": lengths}
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors, use_dora=True)) as merged:
        found = merged.tensor(f"{DOWN}.weight")
        close(merged.rows(f"{DOWN}.weight", 60, 64), found[60:])
    close(np.linalg.norm(found, axis=1), lengths)
    plain = tiny.weights()[f"{DOWN}.weight"] + 1.5 * delta(tensors, DOWN)
    close(found, plain * (lengths / np.linalg.norm(plain, axis=1))[:, None])


def test_an_embedding_is_adapted_by_its_transpose(base: Path, tmp_path: Path) -> None:
    a, b = numbers(4, 320), numbers(64, 4)
    tensors = {f"{PREFIX}{EMBEDDING}.lora_embedding_A": a, f"{PREFIX}{EMBEDDING}.lora_embedding_B": b}
    expected = tiny.weights()[f"{EMBEDDING}.weight"] + 1.5 * (b @ a).T
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors)) as merged:
        close(merged.tensor(f"{EMBEDDING}.weight"), expected)
        close(merged.rows(f"{EMBEDDING}.weight", 100, 107), expected[100:107])


def test_an_embedding_may_come_with_what_it_was_before(base: Path, tmp_path: Path) -> None:
    a, b, before = numbers(4, 320), numbers(64, 4), numbers(320, 64)
    tensors = {
        f"{PREFIX}{EMBEDDING}.lora_embedding_A": a,
        f"{PREFIX}{EMBEDDING}.lora_embedding_B": b,
        f"{PREFIX}{EMBEDDING}.base_layer.weight": before,
    }
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors)) as merged:
        close(merged.tensor(f"{EMBEDDING}.weight"), before + 1.5 * (b @ a).T)


# --- Conv1D: matrices that are stored [inputs, outputs] -------------------------------------

WIDE, SQUARE = "h.0.attn.c_attn", "h.0.attn.c_proj"


def write_conv1d(folder: Path) -> Path:
    return tiny.write_hf_folder(
        folder, values={f"{WIDE}.weight": numbers(16, 48), f"{SQUARE}.weight": numbers(16, 16, seed=1)}
    )


def test_matrices_stored_the_other_way_round_are_adapted_so(tmp_path: Path) -> None:
    modules = {f"transformer.{WIDE}": (48, 16), f"transformer.{SQUARE}": (16, 16)}
    tensors = {name: t for module, (o, i) in modules.items() for name, t in low_rank(module, o, i).items()}
    adapter = write_adapter(tmp_path / "adapter", tensors, fan_in_fan_out=True)
    with open_checkpoint(write_conv1d(tmp_path / "base"), adapter) as merged:
        for name, values in ((WIDE, numbers(16, 48)), (SQUARE, numbers(16, 16, seed=1))):
            expected = values + 1.5 * delta(tensors, f"transformer.{name}").T
            close(merged.tensor(f"{name}.weight"), expected)
            close(merged.rows(f"{name}.weight", 2, 9), expected[2:9])


def test_a_square_matrix_whose_direction_is_contradicted_is_refused(tmp_path: Path) -> None:
    tensors = low_rank(WIDE, 48, 16) | low_rank(SQUARE, 16, 16)
    adapter = write_adapter(tmp_path / "adapter", tensors, fan_in_fan_out=False)
    with pytest.raises(UnsupportedCheckpoint, match=r"which way round h\.0\.attn\.c_proj"):
        open_checkpoint(write_conv1d(tmp_path / "base"), adapter)


# --- tensors that were trained whole --------------------------------------------------------


def test_tensors_trained_whole_take_the_place_of_the_base_s(tmp_path: Path) -> None:
    base = tiny.write_hf_folder(tmp_path / "base", tiny.Config(attention_bias=True))
    norm, bias, head = numbers(64), numbers(64, seed=1), numbers(320, 64)
    tensors = {
        f"{PREFIX}model.norm.weight": norm, f"{PREFIX}{QUERY}.bias": bias, f"{PREFIX}lm_head.weight": head
    }  # fmt: skip
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors, bias="all")) as merged:
        for name, values in (("model.norm.weight", norm), (f"{QUERY}.bias", bias), ("lm_head.weight", head)):
            np.testing.assert_array_equal(merged.tensor(name), values)
            np.testing.assert_array_equal(merged.rows(name, 3, 5), values[3:5])
            assert merged.names()[name].shape == values.shape
            assert merged.blocks(name) is None


def test_more_tokens_make_a_larger_vocabulary(base: Path, tmp_path: Path) -> None:
    tensors = {f"{PREFIX}{EMBEDDING}.weight": numbers(324, 64), f"{PREFIX}lm_head.weight": numbers(324, 64, seed=1)}
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors)) as merged:
        assert merged.config["vocab_size"] == 324
        assert merged.names()[f"{EMBEDDING}.weight"].shape == merged.names()["lm_head.weight"].shape == (324, 64)


def test_a_whole_tensor_may_come_again_under_its_wrapper_s_name(base: Path, tmp_path: Path) -> None:
    tensors = {
        f"{PREFIX}lm_head.original_module.weight": numbers(320, 64, seed=1),
        f"{PREFIX}lm_head.modules_to_save.weight": numbers(320, 64, seed=2),
        f"{PREFIX}lm_head.weight": numbers(320, 64, seed=3),
        f"{PREFIX}{EMBEDDING}.modules_to_save.weight": numbers(320, 64, seed=4),
    }
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors)) as merged:
        np.testing.assert_array_equal(merged.tensor("lm_head.weight"), numbers(320, 64, seed=3))
        np.testing.assert_array_equal(merged.tensor(f"{EMBEDDING}.weight"), numbers(320, 64, seed=4))


def embedding_only() -> Tensors:
    return {f"{PREFIX}{EMBEDDING}.weight": numbers(320, 64)}


def test_what_was_tied_and_trained_alone_is_tied_no_more(tied: Path, tmp_path: Path) -> None:
    before = tiny.weights(tiny.Config(tied=True))[f"{EMBEDDING}.weight"]
    with open_checkpoint(tied, write_adapter(tmp_path / "adapter", embedding_only())) as merged:
        assert merged.config["tie_word_embeddings"] is False
        np.testing.assert_array_equal(merged.tensor(f"{EMBEDDING}.weight"), numbers(320, 64))
        np.testing.assert_array_equal(merged.tensor("lm_head.weight"), before)


def test_an_adapted_head_of_a_tied_model_leaves_the_embedding(tied: Path, tmp_path: Path) -> None:
    tensors = low_rank(HEAD, 320, 64)
    before = tiny.weights(tiny.Config(tied=True))[f"{EMBEDDING}.weight"]
    with open_checkpoint(tied, write_adapter(tmp_path / "adapter", tensors)) as merged:
        assert merged.config["tie_word_embeddings"] is False
        np.testing.assert_array_equal(merged.tensor(f"{EMBEDDING}.weight"), before)
        close(merged.tensor("lm_head.weight"), before + 1.5 * delta(tensors, HEAD))


def test_equal_copies_of_a_tied_matrix_stay_tied(tied: Path, tmp_path: Path) -> None:
    tensors = embedding_only() | {f"{PREFIX}lm_head.weight": numbers(320, 64)}
    with open_checkpoint(tied, write_adapter(tmp_path / "adapter", tensors)) as merged:
        assert merged.config["tie_word_embeddings"] is True
        assert "lm_head.weight" not in merged.names()
        np.testing.assert_array_equal(merged.tensor(f"{EMBEDDING}.weight"), numbers(320, 64))


def test_copies_of_a_tied_matrix_that_differ_in_one_value_do_not(tied: Path, tmp_path: Path) -> None:
    head = numbers(320, 64)
    head[319, 63] += 1
    tensors = embedding_only() | {f"{PREFIX}lm_head.weight": head}
    with open_checkpoint(tied, write_adapter(tmp_path / "adapter", tensors)) as merged:
        assert merged.config["tie_word_embeddings"] is False
        np.testing.assert_array_equal(merged.tensor("lm_head.weight"), head)


def test_tied_adapters_of_tied_matrices_are_refused(tied: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", embedding_only(), ensure_weight_tying=True)
    with pytest.raises(UnsupportedCheckpoint, match=r"ensure_weight_tying.*merge_and_unload"):
        open_checkpoint(tied, adapter)


def test_an_adapter_that_leaves_them_alone_leaves_them_tied(tied: Path, tmp_path: Path) -> None:
    with open_checkpoint(tied, write_adapter(tmp_path / "adapter", low_rank(QUERY, 64, 64))) as merged:
        assert merged.config == json.loads((tied / "config.json").read_text())
        assert "lm_head.weight" not in merged.names()


# --- other bases ----------------------------------------------------------------------------


def test_a_gguf_file_takes_an_adapter(tmp_path: Path) -> None:
    source, name = tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type="Q4_0"), f"{QUERY}.weight"
    with open_checkpoint(source) as plain:
        before, untouched = plain.tensor(name), plain.blocks(f"{DOWN}.weight")
    assert untouched is not None
    with open_checkpoint(source, write_adapter(tmp_path / "my-lora", low_rank(QUERY, 64, 64))) as merged:
        assert (merged.kind, merged.file) == ("gguf", "tiny.gguf + my-lora")
        close(merged.tensor(name), before + 1.5 * delta(BOTH, QUERY))
        assert merged.blocks(name) is None
        kept = merged.blocks(f"{DOWN}.weight")
        assert kept is not None
        np.testing.assert_array_equal(kept.codes, untouched.codes)


def test_a_packed_layer_is_adapted_as_the_floats_that_it_means(tmp_path: Path) -> None:
    layer, module = Layer(96, 64), DOWN
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    base = write_folder(tmp_path / "base", layer.gptq(module) | layer.gptq("other"), settings)
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", low_rank(module, 64, 96))) as merged:
        close(merged.tensor(f"{module}.weight"), layer.weight() + 1.5 * delta(BOTH, module))
        assert merged.names()[f"{module}.weight"].dtype == "float32"
        assert merged.blocks(f"{module}.weight") is None
        assert merged.names()["other.weight"].dtype == "GPTQ4"
        assert merged.blocks("other.weight") is not None


# --- text -----------------------------------------------------------------------------------


def test_without_files_of_its_own_an_adapter_speaks_as_the_base(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    with open_checkpoint(base) as plain, open_checkpoint(base, write_adapter(tmp_path / "a", BOTH)) as merged:
        assert merged.text == plain.text
        assert merged.licence == "mit"


def test_the_adapter_s_tokenizer_and_template_are_taken_and_the_base_s_ends_kept(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", BOTH)
    (adapter / "tokenizer.json").write_text(tiny.tokenizer(add_bos=True).to_str())
    tiny.write_json(adapter / "tokenizer_config.json", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    (adapter / "chat_template.jinja").write_text("trained so")
    with open_checkpoint(base, adapter) as merged:
        assert merged.text.chat_template == "trained so"
        assert merged.text.add_bos
        assert set(merged.text.eos_ids) == {tiny.END_OF_TEXT, tiny.IM_END}


# --- refusals -------------------------------------------------------------------------------


def changed(**config: object) -> Callable[[Path], object]:
    return lambda folder: tiny.write_json(folder / "adapter_config.json", CONFIG | config)


def holding(tensors: Tensors, **config: object) -> Callable[[Path], object]:
    return lambda folder: write_adapter(folder, tensors, **config)


def _pickle_instead(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _cut_off(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


A, B = f"{PREFIX}{QUERY}.lora_A.weight", f"{PREFIX}{QUERY}.lora_B.weight"
MAGNITUDE = f"{PREFIX}{QUERY}.lora_magnitude_vector"
GOOD = low_rank(QUERY, 64, 64)
EMBEDDED: Tensors = {
    f"{PREFIX}{EMBEDDING}.lora_embedding_A": numbers(4, 320),
    f"{PREFIX}{EMBEDDING}.lora_embedding_B": numbers(64, 4),
}
BAD: dict[str, tuple[type[CheckpointError], str, Callable[[Path], object]]] = {
    "no folder": (CheckpointNotFound, r"adapter_config\.json", lambda f: f.rename(f.with_name("elsewhere"))),
    "no configuration": (CheckpointNotFound, "not an adapter", lambda f: (f / "adapter_config.json").unlink()),
    "no weights": (CheckpointNotFound, "no adapter_model", lambda f: (f / "adapter_model.safetensors").unlink()),
    "a pickle": (UnsupportedCheckpoint, "never loaded.*safe_serialization", _pickle_instead),
    "a file cut off": (CorruptCheckpoint, "adapter_model", _cut_off),
    "another method": (UnsupportedCheckpoint, "'IA3'.*merge_and_unload", changed(peft_type="IA3")),
    "no method": (UnsupportedCheckpoint, "type ''", lambda f: tiny.write_json(f / "adapter_config.json", {})),
    "a rank of none": (CorruptCheckpoint, "adapter_config", changed(r=0)),
    "an alpha that is a word": (CorruptCheckpoint, "adapter_config", changed(lora_alpha="six")),
    "a bias of another kind": (CorruptCheckpoint, "bias", changed(bias="some")),
    "PiSSA": (UnsupportedCheckpoint, "'pissa_niter_4'.*changes the model", changed(init_lora_weights="pissa_niter_4")),
    "layers repeated": (UnsupportedCheckpoint, "layer_replication", changed(layer_replication=[[0, 2]])),
    "experts": (UnsupportedCheckpoint, "target_parameters", changed(target_parameters=["w1"])),
    "biases of B": (UnsupportedCheckpoint, "lora_bias", changed(lora_bias=True)),
    "a pattern that takes for ever": (
        UnsupportedCheckpoint, r"pattern '\(a\*\)\*b'", changed(alpha_pattern={"(a*)*b": 1}),
    ),
    "a pattern that is none": (CorruptCheckpoint, "pattern", changed(alpha_pattern={"(a": 1})),
    "nothing adapted": (CorruptCheckpoint, "no tensors", holding({})),
    "a tensor of no adapter": (CorruptCheckpoint, "none of an adapter", holding({"lora_A": numbers(4, 64)})),
    "a tensor of another method": (
        UnsupportedCheckpoint, "lora_diag", holding(GOOD | {f"{PREFIX}{QUERY}.lora_diag": numbers(4)}),
    ),
    "integers": (UnsupportedCheckpoint, "I32", holding(GOOD | {A: np.zeros((4, 64), np.int32)})),
    "half a pair": (CorruptCheckpoint, "are needed", holding({A: GOOD[A]})),
    "another rank than announced": (CorruptCheckpoint, "rank 2", changed(r=2)),
    "factors that do not meet": (CorruptCheckpoint, "rank 4", holding(GOOD | {B: numbers(64, 3)})),
    "magnitudes missing": (CorruptCheckpoint, "magnitude", changed(use_dora=True)),
    "magnitudes unannounced": (CorruptCheckpoint, "magnitude", holding(GOOD | {MAGNITUDE: numbers(64)})),
    "magnitudes of another width": (
        CorruptCheckpoint, "magnitudes", holding(GOOD | {MAGNITUDE: numbers(63)}, use_dora=True),
    ),
    "DoRA on an embedding": (
        UnsupportedCheckpoint, "DoRA on model.embed_tokens",
        holding(EMBEDDED | {f"{PREFIX}{EMBEDDING}.lora_magnitude_vector": numbers(64)}, use_dora=True),
    ),
    "a layer that the model lacks": (
        AdapterMismatch, r"'model\.layers\.7\.self_attn\.q_proj\.weight'",
        holding(low_rank("model.layers.7.self_attn.q_proj", 64, 64)),
    ),
    "a layer of another shape": (AdapterMismatch, r"\[64, 32\].*\[64, 64\]", holding(low_rank(QUERY, 64, 32))),
    "an embedding of another width": (
        AdapterMismatch, r"embed_tokens", holding(EMBEDDED | {f"{PREFIX}{EMBEDDING}.lora_embedding_B": numbers(63, 4)}),
    ),
    "a whole tensor that the model lacks": (
        AdapterMismatch, r"'score\.weight'", holding({f"{PREFIX}score.weight": numbers(2, 64)}),
    ),
    "a whole tensor of another shape": (
        AdapterMismatch, r"\[63\].*\[64\]", holding({f"{PREFIX}model.norm.weight": numbers(63)}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "damage"), BAD.values(), ids=BAD.keys())
def test_an_adapter_that_cannot_be_merged_is_refused_with_what_is_wrong(
    error: type[CheckpointError], words: str, damage: Callable[[Path], object], base: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", GOOD)
    damage(adapter)
    with pytest.raises(error, match=words):
        open_checkpoint(base, adapter)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_an_adapter_may_have_started_from_anything_that_leaves_the_base(
    start: object, base: Path, tmp_path: Path
) -> None:
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", GOOD, init_lora_weights=start)) as merged:
        assert merged.names()[f"{QUERY}.weight"].dtype == "float32"


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_merged_value_that_is_no_number_is_refused_by_name(value: float, base: Path, tmp_path: Path) -> None:
    tensors = GOOD | {A: np.full((4, 64), value, np.float32), B: np.full((64, 4), 1e3, np.float32)}
    with (
        open_checkpoint(base, write_adapter(tmp_path / "adapter", tensors)) as merged,
        pytest.raises(CorruptCheckpoint, match=r"layers\.1\.self_attn\.q_proj"),
    ):
        merged.tensor(f"{QUERY}.weight")


def test_both_files_are_closed(base: Path, tmp_path: Path) -> None:
    with open_checkpoint(base, write_adapter(tmp_path / "adapter", GOOD)) as merged:
        pass
    for name in (f"{QUERY}.weight", f"{DOWN}.weight"):
        with pytest.raises(ValueError, match="closed"):
            merged.tensor(name)
