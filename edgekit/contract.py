"""The handshake between an exported graph and the engine: names, types and shapes.

    input                          type     shape
    input_ids                      int64    [batch, sequence]
    attention_mask                 int64    [batch, total]; rows are right-padded, lengths are row sums
    past_key_values.{i}.key/value  (cache)  [batch, kv_heads, capacity, head_dim]; same buffer as present
    logits_to_keep                 int64    scalar, optional: how many last positions get logits; 0 means all

    output                         type     shape
    logits                         float32  [batch, kept, vocab]
    present.{i}.key/value          (cache)  as past

The cache is float32, or int8 where the manifest says `cache: int8`: the graph then holds the scale of each channel,
and the engine moves bytes whose meaning it need not know.
`sequence` tokens are appended after the `total - sequence` tokens that the cache already holds.
The names are those of onnxruntime-genai, so that it opens the same folder.

That is `kv: shared`. Graphs that another exporter made have `kv: concat`: `past_key_values` is as long as what was
read before, `present` is it with the new tokens appended, in memory of its own; `logits_to_keep` may be missing, and

    position_ids                   int64    [batch, sequence], optional: 0 for a sequence's first token

An encoder (`task: embed`) has neither cache nor logits; rows are right-padded:

    input                          type     shape
    input_ids, attention_mask      int64    [batch, sequence]
    token_type_ids, position_ids   int64    [batch, sequence], each optional: zeros, and 0, 1, 2 ...

    output                         type     shape
    last_hidden_state              float32  [batch, sequence, hidden]

Beside a decoder of ours may stand its twin for reading prompts, `prefill.onnx`: the same inputs without
`logits_to_keep`, and only `present` as outputs. Its weights, `prefill.onnx.data`, are derived on each device from
`model.onnx.data` (edgekit.twin) and are no part of a bundle.

A third graph, `model-adapters.onnx`, is the decoder over the same `model.onnx.data` with a LoRA branch beside every
linear of its layers (edgekit.adapter says which there are). Two more inputs for each have a default, of rank 0:

    {linear}.lora_A                float32  [inputs, rank]
    {linear}.lora_B                float32  [rank, outputs]; what is added is x A B
"""

from collections.abc import Callable, Mapping
from typing import Literal

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LOGITS_TO_KEEP = "logits_to_keep"
LOGITS = "logits"
POSITION_IDS = "position_ids"
SEGMENT_IDS = "token_type_ids"
HIDDEN_STATES = "last_hidden_state"

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
PREFILL_FILE = "prefill.onnx"
PREFILL_DATA = "prefill.onnx.data"
ADAPTERS_FILE = "model-adapters.onnx"
MANIFEST_FILE = "bundle.json"
ADAPTER_MANIFEST_FILE = "adapter.json"
ADAPTER_WEIGHTS_FILE = "adapter.onnx_adapter"
ADAPTERS_FOLDER = "adapters"
"""In a bundle's folder or beside bundles: where a store's adapters stand."""
GENAI_FILE = "genai_config.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
CARD_FILE = "MODEL_CARD.md"

Half = Literal["key", "value"]
HALVES: tuple[Half, Half] = ("key", "value")
CacheName = Callable[[int | str, Half], str]

CacheType = Literal["float32", "int8"]
CACHE_TYPES: tuple[CacheType, ...] = ("float32", "int8")
CACHE_VALUE_BYTES: Mapping[CacheType, int] = {"float32": 4, "int8": 1}


def past_name(layer: int | str, half: Half) -> str:
    """Input that holds a layer's cached keys or values."""
    return f"past_key_values.{layer}.{half}"


def present_name(layer: int | str, half: Half) -> str:
    """Output that is bound to the same buffer as `past_name`."""
    return f"present.{layer}.{half}"


def lora_names(linear: str) -> tuple[str, str]:
    """Inputs of a linear's LoRA branch: its A and its B."""
    return f"{linear}.lora_A", f"{linear}.lora_B"
