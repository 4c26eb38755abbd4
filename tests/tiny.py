"""A tiny random llama model, as a Hugging Face folder and as a GGUF file of the same weights.

Both come with a real byte-level BPE tokenizer and a ChatML template. The tensors of the two agree
exactly when the GGUF's type is a float type at least as wide as the folder's, and within a quantisation
step otherwise.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import gguf.quants
import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, processors

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, IM_START, IM_END = range(3)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MERGES = ("t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and", "e r", "o n", "Ġ a", "h e", "l l", "he ll", "hell o")
Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model's shape. Widths suit blocks of 32; `vocab` is larger than the tokenizer, as in many real models."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    intermediate: int = 96
    vocab: int = 320
    context: int = 256
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: float = 10000.0
    linear_rope_factor: float | None = None
    norm_eps: float = 1e-5
    add_bos: bool = False


DEFAULT = Config()


def shapes(config: Config = DEFAULT) -> dict[str, tuple[int, ...]]:
    """Every tensor under transformers' names."""
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    linears = {
        "self_attn.q_proj": (query, config.hidden, config.attention_bias),
        "self_attn.k_proj": (key, config.hidden, config.attention_bias),
        "self_attn.v_proj": (key, config.hidden, config.attention_bias),
        "self_attn.o_proj": (config.hidden, query, config.attention_bias),
        "mlp.gate_proj": (config.intermediate, config.hidden, config.mlp_bias),
        "mlp.up_proj": (config.intermediate, config.hidden, config.mlp_bias),
        "mlp.down_proj": (config.hidden, config.intermediate, config.mlp_bias),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab, config.hidden)}
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}"
        for name, (rows, columns, bias) in linears.items():
            found[f"{prefix}.{name}.weight"] = (rows, columns)
            if bias:
                found[f"{prefix}.{name}.bias"] = (rows,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}.{norm}.weight"] = (config.hidden,)
    found["model.norm.weight"] = (config.hidden,)
    if not config.tied:
        found["lm_head.weight"] = (config.vocab, config.hidden)
    return found


def weights(config: Config = DEFAULT, *, seed: int = 0) -> Weights:
    """Random weights under transformers' names, scaled so that logits differ clearly between tokens."""
    random = np.random.default_rng(seed)
    scales = {"model.embed_tokens.weight": 0.5, "lm_head.weight": 0.3}
    return {
        name: ((1.0 if "norm" in name else 0.0) + random.normal(0.0, scales.get(name, 0.2), shape)).astype(np.float32)
        for name, shape in shapes(config).items()
    }


def vocabulary() -> dict[str, int]:
    """Token -> id: three special tokens, 256 bytes, the products of the merges."""
    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in _MERGES)]
    return {token: number for number, token in enumerate(tokens)}


def tokenizer(*, add_bos: bool = False) -> tokenizers.Tokenizer:
    """Byte-level BPE that cuts text as SmolLM does."""
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary(), merges=[(m.split()[0], m.split()[1]) for m in _MERGES]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    if add_bos:
        bos = SPECIALS[IM_START]
        made.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, IM_START)])
    return made


def hf_config(config: Config = DEFAULT) -> dict[str, object]:
    """config.json of transformers' LlamaForCausalLM."""
    scaling = config.linear_rope_factor
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": config.layers,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocab,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if scaling is None else {"rope_type": "linear", "factor": scaling},
        "hidden_act": "silu",
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tied,
        "bos_token_id": IM_START,
        "eos_token_id": IM_END,
        "pad_token_id": IM_END,
    }


def write_hf_folder(
    folder: Path,
    config: Config = DEFAULT,
    *,
    shards: int = 1,
    dtype: str = "float32",
    seed: int = 0,
    values: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """A complete folder in `dtype` (float32, float16 or bfloat16), split over `shards` files. Returns `folder`.

    `values` replaces the random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[IM_START],
        "eos_token": SPECIALS[IM_END],
        "pad_token": SPECIALS[IM_END],
        "model_max_length": config.context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"bos_token_id": IM_START, "eos_token_id": [IM_END, END_OF_TEXT]}
    write_json(folder / "config.json", hf_config(config))
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", generation)
    (folder / "tokenizer.json").write_text(tokenizer(add_bos=config.add_bos).to_str(), encoding="utf-8")
    found = weights(config, seed=seed) if values is None else dict(values)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", found, dtype=dtype)
        return folder
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(found)}
    for shard in set(weight_map.values()):
        write_safetensors(folder / shard, {n: v for n, v in found.items() if weight_map[n] == shard}, dtype=dtype)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return folder


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]], *, dtype: str = "float32") -> None:
    """Write the format by hand: the package's numpy writer has no bfloat16."""
    code = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        raw = _as_dtype(values, dtype)
        header[name] = {"dtype": code, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_gguf(
    path: Path,
    config: Config = DEFAULT,
    *,
    tensor_type: str = "F16",
    seed: int = 0,
    values: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """The same model as llama.cpp's converter would write it: matrices in `tensor_type`, vectors in F32.

    `tensor_type` is one that gguf can quantise: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0. Returns `path`.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _write_metadata(writer, config)
    for name, tensor in (weights(config, seed=seed) if values is None else values).items():
        kind = gguf.GGMLQuantizationType[tensor_type if tensor.ndim == 2 else "F32"]
        stored = gguf.quants.quantize(_gguf_order(name, tensor, config), kind)
        writer.add_tensor(gguf_name(name), stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    """What the converter calls a tensor of transformers."""
    for theirs, ours in _GGUF_NAMES:
        name = name.replace(theirs, ours)
    return name


_GGUF_NAMES = (
    ("model.layers.", "blk."),
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _as_dtype(values: NDArray[np.float32], dtype: str) -> bytes:
    if dtype != "bfloat16":
        return values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest, ties to even
    return rounded.astype("<u2").tobytes()


def _gguf_order(name: str, values: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Rows of Q and K from half-split to interleaved rotary order, as the converter's `permute` does."""
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return values
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))


def _write_metadata(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_license("apache-2.0")
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.hidden)
    writer.add_feed_forward_length(config.intermediate)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab)
    if config.linear_rope_factor is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.linear_rope_factor)
    write_gguf_text(writer, config.vocab, add_bos=config.add_bos)


def write_gguf_text(writer: gguf.GGUFWriter, vocab: int, *, add_bos: bool) -> None:
    """The tokenizer, filled up with tokens that no text becomes, and the template."""
    tokens = list(vocabulary())
    kinds = [gguf.TokenType.CONTROL] * len(SPECIALS) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIALS))
    padding = [f"[PAD{number}]" for number in range(len(tokens), vocab)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens + padding)
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(padding))
    writer.add_token_merges(list(_MERGES))
    writer.add_bos_token_id(IM_START)
    writer.add_eos_token_id(IM_END)
    writer.add_pad_token_id(IM_END)
    writer.add_add_bos_token(add_bos)
    writer.add_chat_template(CHAT_TEMPLATE)
