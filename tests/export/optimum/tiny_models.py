"""Tiny random models of architectures without a family, as transformers saves them, with tests/tiny.py's tokenizer."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import processors

from tests import tiny

VOCAB = 320
CONTEXT = 256
SIZES: Mapping[str, Mapping[str, Any]] = {
    "opt": {
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "num_hidden_layers": 2,
        "ffn_dim": 128,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
    },
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "seq_length": CONTEXT},
    "codegen": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "n_ctx": CONTEXT, "rotary_dim": 8},
    "gpt_bigcode": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "gpt_neo": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": CONTEXT,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT},
    "bert": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": CONTEXT,
    },
}


def original(model_type: str, *, seed: int = 0, **changed: Any) -> Any:
    """A model in torch whose logits differ clearly between tokens."""
    torch.manual_seed(seed)
    facts: dict[str, Any] = {
        "vocab_size": VOCAB,
        "bos_token_id": tiny.IM_START,
        "eos_token_id": tiny.IM_END,
        "pad_token_id": 0,
    }
    config = transformers.CONFIG_MAPPING[model_type](**facts, **SIZES[model_type], **changed)
    classes: Any = transformers.AutoModel if model_type == "bert" else transformers.AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = classes.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.15)
    return model


def write_decoder(folder: Path, model_type: str, **changed: Any) -> Path:
    """A folder that an export takes; returns it."""
    model = original(model_type, **changed)
    _save(folder, model)
    (folder / "tokenizer.json").write_text(tiny.tokenizer().to_str(), encoding="utf-8")
    settings = {"eos_token": tiny.SPECIALS[tiny.IM_END], "chat_template": tiny.CHAT_TEMPLATE}
    tiny.write_json(folder / "tokenizer_config.json", settings)
    return folder


def write_encoder(folder: Path, *, pooling: str = "mean_tokens", normalise: bool = True, max_tokens: int = 64) -> Path:
    """A folder of sentence-transformers with a tiny BERT; returns it."""
    _save(folder, original("bert"))
    tokenizer = tiny.tokenizer()
    first, last = tiny.SPECIALS[tiny.IM_START], tiny.SPECIALS[tiny.IM_END]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[first, "$A", last], special_tokens=[(first, tiny.IM_START), (last, tiny.IM_END)]
    )
    tokenizer.enable_padding(length=24)  # what authors leave behind in tokenizer.json
    tokenizer.enable_truncation(24)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    tiny.write_json(folder / "tokenizer_config.json", {"model_max_length": 10**30})
    write_modules(folder, pooling=pooling, normalise=normalise, max_tokens=max_tokens)
    return folder


def write_modules(folder: Path, *, pooling: str, normalise: bool, max_tokens: int) -> None:
    """What makes a folder one of sentence-transformers."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalise else [])]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    tiny.write_json(folder / "modules.json", listed)
    tiny.write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True}
    )
    tiny.write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})


def change_config(folder: Path, **changed: object) -> None:
    """Change config.json."""
    path = folder / "config.json"
    tiny.write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changed})


def logits(model: Any, ids: list[int]) -> NDArray[np.float32]:
    """[tokens, vocab]."""
    with torch.inference_mode():
        found: NDArray[np.float32] = model(torch.tensor([ids])).logits[0].numpy()
    return found


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """The plain definition: no cache, one token after the other."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits(model, ids)[-1].argmax()))
    return ids[len(prompt) :]


def sentence_vector(model: Any, ids: list[int], pooling: str, *, normalise: bool) -> NDArray[np.float32]:
    """sentence-transformers' definition, in torch."""
    with torch.inference_mode():
        states = model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
        vector = {"mean_tokens": states.mean(1), "cls_token": states[:, 0], "lasttoken": states[:, -1]}[pooling]
        if normalise:
            vector = torch.nn.functional.normalize(vector, p=2, dim=1)
    found: NDArray[np.float32] = vector[0].numpy()
    return found


def _save(folder: Path, model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, safe_serialization=True)
