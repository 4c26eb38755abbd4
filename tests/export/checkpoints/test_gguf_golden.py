"""Files that llama.cpp's converter wrote show the model that it was given: every tensor, every setting."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoints import Checkpoint, open_checkpoint
from export.checkpoints.gguf_tables import ARCHITECTURES
from tests.golden.gguf_values import FOLDER, value_of

NAMES = sorted(path.name.removesuffix(".gguf.xz") for path in FOLDER.glob("*.gguf.xz"))
JAIS_SCALES = {"transformer.wte.weight": 2.0, "lm_head.weight": 0.5}
"""The converter multiplies these into the weights."""

DIFFERENT: dict[str, dict[str, Any]] = {
    "llama3": {"rope_scaling": {"rope_type": "table", "factors": [1.0, 7.667385, 8.0, 8.0]}},
    "mistral": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "head_dim": 8},
    "phi3-longrope": {
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.125, 1.25],
            "long_factor": [1.5, 4.0, 9.0],
        }
    },
    # The converter writes 2048 whatever the configuration says; with one key/value head both layouts are the same.
    "falcon-7b": {"max_position_embeddings": 2048, "num_ln_in_parallel_attn": 1},
    "falcon-11b": {"max_position_embeddings": 2048, "multi_query": False},
    "falcon-40b": {"max_position_embeddings": 2048, "multi_query": False, "num_ln_in_parallel_attn": 2},
    "gemma": {"hidden_activation": "gelu_pytorch_tanh"},
    "jais": {"embeddings_scale": 1.0, "width_scale": 1.0, "tie_word_embeddings": False},
}
"""What GGUF says in other words than config.json, or cannot say."""
SILENT: dict[str, Any] = {
    "tie_word_embeddings": True,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
    "head_dim": 8,
    "hidden_act": "gelu_pytorch_tanh",
    "scale_attn_weights": True,
    "scale_qk_dot_by_d": True,
}
"""What config.json may leave out, because it is what transformers assumes for these models."""
NOT_NEEDED = {
    "_sliding_window_pattern", "attention_dropout", "attn_pdrop", "bos_token_id", "classifier_dropout", "embd_pdrop",
    "embedding_dropout", "eos_token_id", "hidden_dropout", "initializer_range", "max_window_layers", "model_max_length",
    "n_ctx", "no_rope_layer_interval", "pad_token_id", "pretraining_tp", "reorder_and_upcast_attn", "resid_pdrop",
    "residual_dropout", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "transformers_version", "use_bidirectional_attention", "use_cache",
}  # fmt: skip
"""Keys that have no part in computing logits, or only repeat another."""
AS_USUAL: dict[str, Any] = {
    "attention_bias": False,
    "layer_types": ["full_attention"] * 2,
    "no_rope_layers": None,
    "partial_rotary_factor": 0.5,
    "qk_layernorm": False,
    "rotary_pct": 1.0,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "sliding_window": None,
    "use_sliding_window": False,
}
"""Keys that GGUF leaves out, with the only value for which that is right here."""


def written(name: str, folder: Path) -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
    return path


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    with open_checkpoint(written(name, tmp_path_factory.mktemp("golden"))) as opened:
        yield opened


def test_there_is_a_file_of_every_architecture(tmp_path: Path) -> None:
    types = set()
    for name in NAMES:
        with open_checkpoint(written(name, tmp_path)) as opened:
            types.add(opened.config["model_type"])
    assert types == {row.constants["model_type"] for row in ARCHITECTURES.values()}


def test_every_tensor_has_the_values_that_were_converted(name: str, checkpoint: Checkpoint) -> None:
    for tensor, info in checkpoint.names().items():
        expected = value_of(tensor, info.shape)
        if name == "jais":
            expected *= np.float32(JAIS_SCALES.get(tensor, 1.0))
        np.testing.assert_array_equal(checkpoint.tensor(tensor), expected, err_msg=tensor)


def test_rows_are_slices_of_the_tensors(checkpoint: Checkpoint) -> None:
    for tensor, info in checkpoint.names().items():
        whole, end = checkpoint.tensor(tensor), info.shape[0]
        for start, stop in [(0, 1), (end // 3, 2 * end // 3), (end - 2, end)]:
            np.testing.assert_array_equal(checkpoint.rows(tensor, start, stop), whole[start:stop], err_msg=tensor)


def test_the_configuration_says_what_config_json_said(name: str, checkpoint: Checkpoint) -> None:
    theirs = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    missing = object()
    wrong = {
        key: value
        for key, value in checkpoint.config.items()
        if value != DIFFERENT.get(name, {}).get(key, theirs.get(key, SILENT.get(key, missing)))
    }
    assert wrong == {}


def test_the_configuration_leaves_out_nothing_that_matters(name: str, checkpoint: Checkpoint) -> None:
    theirs = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    repeated = {
        "gptneox": {"num_key_value_heads", "partial_rotary_factor", "rope_theta"},
        "mistral": {"sliding_window"},  # llama.cpp's converter drops it
        "smollm3": {"layer_types"},
    }
    falcon = {"intermediate_size", "num_key_value_heads"} if name.startswith("falcon") else set()
    skipped = NOT_NEEDED | repeated.get(name, set()) | falcon
    left_out = {key: value for key, value in theirs.items() if key not in checkpoint.config and key not in skipped}
    assert {key: value for key, value in left_out.items() if key not in AS_USUAL or value != AS_USUAL[key]} == {}
