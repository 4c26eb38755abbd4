"""The handshake between an exported graph and the engine: names, types and shapes.

    input                          type     shape
    input_ids                      int64    [batch, sequence]
    attention_mask                 int64    [batch, total]; rows are right-padded, lengths are row sums
    past_key_values.{i}.key/value  float32  [batch, kv_heads, capacity, head_dim]; same buffer as present
    logits_to_keep                 int64    scalar, optional: how many last positions get logits; 0 means all

    output                         type     shape
    logits                         float32  [batch, kept, vocab]
    present.{i}.key/value          float32  as past

`sequence` tokens are appended after the `total - sequence` tokens that the cache already holds.
The names are those of onnxruntime-genai, so that it opens the same folder.
"""

from collections.abc import Callable
from typing import Literal

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LOGITS_TO_KEEP = "logits_to_keep"
LOGITS = "logits"

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
MANIFEST_FILE = "bundle.json"
GENAI_FILE = "genai_config.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
CARD_FILE = "MODEL_CARD.md"

Half = Literal["key", "value"]
HALVES: tuple[Half, Half] = ("key", "value")
CacheName = Callable[[int | str, Half], str]


def past_name(layer: int | str, half: Half) -> str:
    """Input that holds a layer's cached keys or values."""
    return f"past_key_values.{layer}.{half}"


def present_name(layer: int | str, half: Half) -> str:
    """Output that is bound to the same buffer as `past_name`."""
    return f"present.{layer}.{half}"
