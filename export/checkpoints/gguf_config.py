"""GGUF metadata and tensor names to config.json and transformers' names, by the tables in `gguf_names`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.arch import MAX_DIMENSION
from edgekit.errors import CorruptCheckpoint, ShapeMismatch, UnexpectedTensor, UnknownFamily, UnsupportedCheckpoint
from export.checkpoints.gguf_header import Header, StoredTensor, Value
from export.checkpoints.gguf_names import ARCHITECTURES, Architecture

_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.(.+)")
_ROPE_FACTORS = "rope_freqs.weight"

Metadata = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A stored tensor; `heads` is set if its rows are in interleaved rotary order, that many heads of them."""

    stored: StoredTensor
    heads: int | None


def architecture_of(header: Header, file: str) -> tuple[str, Architecture]:
    """The architecture's name and row.

    Raises UnknownFamily, or UnsupportedCheckpoint for files that are only a part of a model.
    """
    metadata = header.metadata
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedCheckpoint(f"{file} is one of {parts} parts; join them with llama-gguf-split --merge")
    if metadata.get("general.type", "model") != "model":
        raise UnsupportedCheckpoint(f"{file} is not a whole model but of the type {metadata['general.type']!r}")
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CorruptCheckpoint("it does not say its general.architecture", file)
    if name not in ARCHITECTURES:
        raise UnknownFamily(name[:100], ", ".join(sorted(ARCHITECTURES)))
    return name, ARCHITECTURES[name]


def config_of(header: Header, name: str, row: Architecture, file: str) -> dict[str, object]:
    """What config.json would say.

    Raises CorruptCheckpoint for a missing or impossible value, UnsupportedCheckpoint for what `row` cannot express.
    """
    read = _Settings(header.metadata, name, file)
    config: dict[str, object] = dict(row.constants)
    config |= {ours: read.count(key, row) for key, ours in row.counts.items()}
    config |= {ours: read.number(key, row) for key, ours in row.numbers.items()}
    config = {key: value for key, value in config.items() if value is not None}
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    config.setdefault("num_key_value_heads", heads)
    config.setdefault("rope_theta", 10000.0)
    if isinstance(heads, int) and isinstance(hidden, int):
        config.setdefault("head_dim", hidden // heads)
    if isinstance(tokens, list):
        config.setdefault("vocab_size", len(tokens))
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config |= {ours: tensor in header.tensors for ours, tensor in row.flags.items()}
    config["rope_scaling"] = _rope_scaling(header, read)
    _refuse_others(read, config)
    return config


def tensors_of(header: Header, row: Architecture, config: Mapping[str, object], file: str) -> dict[str, NamedTensor]:
    """Tensors under transformers' names. Raises UnexpectedTensor for a name that `row` does not have."""
    found: dict[str, NamedTensor] = {}
    for name, stored in header.tensors.items():
        match = _LAYER.fullmatch(name)
        template = f"blk.{{i}}.{match[2]}" if match else name
        if template not in row.tensors:
            raise UnexpectedTensor(f"{name!r} in {file}")
        ours = row.tensors[template]
        if ours is None:
            continue
        ours = ours.replace("{i}", match[1]) if match else ours
        heads = config.get(row.interleaved.get(template, ""))
        if isinstance(heads, int) and stored.shape[0] % (2 * heads):
            raise ShapeMismatch(ours, str(list(stored.shape)), f"{heads} heads of an even size")
        found[ours] = NamedTensor(stored, heads if isinstance(heads, int) else None)
    return found


def _rope_scaling(header: Header, read: "_Settings") -> dict[str, object] | None:
    if _ROPE_FACTORS in header.tensors:
        raise UnsupportedCheckpoint(
            "it stretches rotary frequencies by a table (rope_freqs.weight), as Llama 3.1 and later do; "
            "give the Hugging Face folder, whose config.json has the rule behind the table"
        )
    kind = read.get("rope.scaling.type", "none")
    factor = read.get("rope.scaling.factor", read.get("rope.scale_linear", 1.0))
    if not isinstance(factor, float) or not 0 < factor < float("inf"):
        raise CorruptCheckpoint("its rope.scaling.factor is not a positive number", read.file)
    if kind not in ("none", "linear"):
        raise UnsupportedCheckpoint(f"rotary scaling of the type {kind!r}; none and linear are read")
    # Older converters wrote a factor without a type; a factor of 1 changes nothing.
    stretched = factor != 1.0 and (kind == "linear" or not read.has("rope.scaling.type"))
    return {"rope_type": "linear", "factor": factor} if stretched else None


def _refuse_others(read: "_Settings", config: Mapping[str, object]) -> None:
    """Raise UnsupportedCheckpoint for settings that change the result and have no place in `config`."""
    if read.get("expert_count", 0) != 0:
        raise UnsupportedCheckpoint("it is a mixture of experts")
    for key in ("rope.dimension_count", "attention.value_length"):
        if read.get(key, config["head_dim"]) != config["head_dim"]:
            raise UnsupportedCheckpoint(f"its {key} is {read.get(key, 0)}, but its heads are {config['head_dim']} wide")


class _Settings:
    """Values under `<architecture>.`, checked."""

    def __init__(self, metadata: Metadata, name: str, file: str) -> None:
        self._metadata = metadata
        self._name = name
        self.file = file

    def has(self, key: str) -> bool:
        """True if the file says it."""
        return f"{self._name}.{key}" in self._metadata

    def get(self, key: str, default: Value | object) -> object:
        """The value as it is."""
        return self._metadata.get(f"{self._name}.{key}", default)

    def count(self, key: str, row: Architecture) -> int | None:
        """A positive whole number, or None if it may be absent and is."""
        value = self._required(key, row)
        if value is None:
            return None
        if not isinstance(value, bool | int | float | str):
            raise UnsupportedCheckpoint(f"its {self._name}.{key} differs from layer to layer")
        if type(value) is not int or not 0 < value <= MAX_DIMENSION:
            raise CorruptCheckpoint(f"its {self._name}.{key} is {value!r}"[:200], self.file)
        return value

    def number(self, key: str, row: Architecture) -> float | None:
        """A positive finite number, or None if it may be absent and is."""
        value = self._required(key, row)
        if value is None:
            return None
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise CorruptCheckpoint(f"its {self._name}.{key} is {value!r}"[:200], self.file)
        return value

    def _required(self, key: str, row: Architecture) -> object:
        value = self.get(key, None)
        if value is None and key not in row.optional:
            raise CorruptCheckpoint(f"it does not say its {self._name}.{key}", self.file)
        return value
