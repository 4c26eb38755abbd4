"""Make tests/golden/gguf: one tiny GGUF per architecture, written by llama.cpp's own converter.

Run by hand, with llama.cpp's sources, transformers, torch and sentencepiece at hand, when an architecture is added:

    python -m tests.golden.make_gguf LLAMA_CPP_FOLDER [NAME ...]

Beside each file lies the config.json that it was made from. The weights are `tests.golden.gguf_values.value_of`,
so that tests know what every tensor should hold; they are multiples of 1/16, which float16 holds exactly.
"""

import argparse
import importlib
import lzma
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import sentencepiece
import torch
import transformers

from tests import tiny
from tests.golden.gguf_values import CORPUS, FOLDER, values_of

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 128, "n_positions": 128, "n_ctx": 128, "vocab_size": 320}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.125, 1.25], "long_factor": [1.5, 4.0, 9.0]}
CASES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "spm", {"rope_theta": 50000.0, "head_dim": 12}),
    "llama3": ("LlamaForCausalLM", "bpe", {"rope_scaling": LLAMA3, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("MistralForCausalLM", "spm", {"sliding_window": None}),
    "phi2": (
        "PhiForCausalLM",
        "bpe",
        {"intermediate_size": 128, "num_key_value_heads": 4, "partial_rotary_factor": 0.5},
    ),
    "phi3": ("Phi3ForCausalLM", "spm", {"sliding_window": 64, "original_max_position_embeddings": 128}),
    "phi3-longrope": (
        "Phi3ForCausalLM",
        "spm",
        {"partial_rotary_factor": 0.75, "original_max_position_embeddings": 64, "rope_scaling": LONGROPE}
        | {"tie_word_embeddings": True},
    ),
    "falcon-7b": (
        "FalconForCausalLM",
        "bpe",
        {"num_kv_heads": 1, "multi_query": True, "new_decoder_architecture": False},
    ),
    "falcon-40b": ("FalconForCausalLM", "bpe", {"num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon-11b": (
        "FalconForCausalLM",
        "bpe",
        {"num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "rope_theta": 10000.0},
    ),
    "nemotron": ("NemotronForCausalLM", "spm", {"head_dim": 8, "partial_rotary_factor": 0.5, "norm_eps": 1e-6}),
    "command-r": ("CohereForCausalLM", "bpe", {"logit_scale": 0.125, "use_qk_norm": True, "model_max_length": 128}),
    "cohere2": (
        "Cohere2ForCausalLM",
        "bpe",
        {"logit_scale": 0.125, "sliding_window": 16, "num_hidden_layers": 4, "rotary_pct": 1.0, "head_dim": 8},
    ),
    "jais": (
        "JAISLMHeadModel",
        "bpe",
        GPT2
        | {
            "n_inner": 44,
            "activation_function": "swiglu",
            "position_embedding_type": "alibi",
            "layer_norm_epsilon": 1e-5,
        }
        | {"embeddings_scale": 2.0, "width_scale": 0.5, "model_type": "jais", "architectures": ["JAISLMHeadModel"]},
    ),
    "gpt2": ("GPT2LMHeadModel", "bpe", GPT2),
    "gptneox": ("GPTNeoXForCausalLM", "bpe", {"rotary_pct": 0.5, "use_parallel_residual": False}),
    "starcoder2": ("Starcoder2ForCausalLM", "bpe", {"rope_theta": 100000.0}),
    "stablelm": ("StableLmForCausalLM", "bpe", {"use_qkv_bias": True, "partial_rotary_factor": 0.25}),
    "stablelm-parallel": (
        "StableLmForCausalLM",
        "bpe",
        {"use_parallel_residual": True, "partial_rotary_factor": 0.25},
    ),
    "qwen2": ("Qwen2ForCausalLM", "bpe", {"tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "qwen3": ("Qwen3ForCausalLM", "bpe", {"head_dim": 12}),
    "gemma": ("GemmaForCausalLM", "spm", {"head_dim": 12}),
    "gemma2": ("Gemma2ForCausalLM", "spm", {"head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 16}),
    "gemma3": (
        "Gemma3ForCausalLM",
        "spm",
        {"head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 16, "num_hidden_layers": 6}
        | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "olmo2": ("Olmo2ForCausalLM", "bpe", {"rope_theta": 500000.0}),
    "granite": (
        "GraniteForCausalLM",
        "bpe",
        {"embedding_multiplier": 12.0, "attention_multiplier": 0.25, "residual_multiplier": 0.5, "logits_scaling": 8.0},
    ),
    "smollm3": ("SmolLM3ForCausalLM", "bpe", {"num_hidden_layers": 4, "tie_word_embeddings": True}),
}
"""Name -> transformers' class, kind of tokenizer and what differs from SMALL."""

JAIS_LAYER = {
    "ln_1.weight": (32,), "ln_1.bias": (32,), "ln_2.weight": (32,), "ln_2.bias": (32,),
    "attn.c_attn.weight": (32, 96), "attn.c_attn.bias": (96,),
    "attn.c_proj.weight": (32, 32), "attn.c_proj.bias": (32,),
    "mlp.c_fc.weight": (32, 44), "mlp.c_fc.bias": (44,),
    "mlp.c_fc2.weight": (32, 44), "mlp.c_fc2.bias": (44,),
    "mlp.c_proj.weight": (44, 32), "mlp.c_proj.bias": (32,),
}  # fmt: skip
JAIS = {
    "transformer.wte.weight": (320, 32),
    **{f"transformer.h.{i}.{name}": shape for i in range(2) for name, shape in JAIS_LAYER.items()},
    "transformer.ln_f.weight": (32,),
    "transformer.ln_f.bias": (32,),
    "lm_head.weight": (320, 32),
}
"""Jais is not in transformers; names and shapes of its published code."""


def make(name: str, converter: Any) -> None:
    """Write gguf/`name`.gguf.xz and .json."""
    class_name, tokenizer, changes = CASES[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        if name == "jais":
            tiny.write_json(folder / "config.json", changes)
            shapes = dict(JAIS)
        else:
            shapes = _from_transformers(folder, class_name, changes)
        tiny.write_safetensors(folder / "model.safetensors", values_of(shapes), dtype="float16")
        _write_tokenizer(folder, tokenizer)
        (FOLDER / f"{name}.json").write_text((folder / "config.json").read_text("utf-8"), encoding="utf-8")
        target = Path(scratch) / f"{name}.gguf"
        with torch.inference_mode():
            model = converter.get_model_class(class_name)
            # The table of hashes cannot know our tiny vocabulary.
            with mock.patch.object(converter.TextModel, "get_vocab_base_pre", return_value="smollm"):
                model(folder, converter.gguf.LlamaFileType.MOSTLY_F16, target, model_name=name).write()
        (FOLDER / f"{name}.gguf.xz").write_bytes(lzma.compress(target.read_bytes()))


def _from_transformers(folder: Path, class_name: str, changes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Write config.json; returns names and shapes of the tensors that a checkpoint of it has."""
    model_class = getattr(transformers, class_name)
    known = SMALL if class_name != "GPT2LMHeadModel" else {}
    given = {key: value for key, value in {**known, **changes}.items() if value is not None}
    config = model_class.config_class(**given)
    config.architectures = [class_name]
    config.save_pretrained(folder)
    with torch.device("meta"), transformers.modeling_utils.no_init_weights():
        model = model_class(config)
    tied = set(model._tied_weights_keys or ()) if config.tie_word_embeddings else set()
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}


def _write_tokenizer(folder: Path, kind: str) -> None:
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    if kind == "bpe":
        tiny.tokenizer().save(str(folder / "tokenizer.json"))
        settings = {
            "bos_token": tiny.SPECIALS[1],
            "eos_token": tiny.SPECIALS[2],
            "tokenizer_class": "GPT2TokenizerFast",
        }
    else:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_prefix=str(folder / "tokenizer"),
            model_type="bpe",
            vocab_size=320,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    tiny.write_json(folder / "tokenizer_config.json", settings | {"chat_template": tiny.CHAT_TEMPLATE})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path, help="folder of llama.cpp's sources")
    parser.add_argument("names", nargs="*", help="which to make; all if none is given")
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.llama_cpp), str(arguments.llama_cpp / "gguf-py")]
    for loaded in [name for name in sys.modules if name.split(".")[0] == "gguf"]:
        del sys.modules[loaded]  # the converter needs its own copy, which may be newer than the released one
    FOLDER.mkdir(exist_ok=True)
    conversion: Any = importlib.import_module("conversion")
    conversion.gguf = importlib.import_module("gguf")
    for one in arguments.names or CASES:
        make(one, conversion)
