"""ModelArch of a graph that another exporter made: sizes, read off its inputs and outputs and `config.json`."""

from collections.abc import Mapping, Sequence

import onnx

from edgekit import contract
from edgekit.arch import MAX_DIMENSION, ModelArch
from edgekit.errors import UnsupportedCheckpoint
from export.checkpoints import TensorInfo

_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_INTERMEDIATE = ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""What publishers call the same number, in the order of trust."""

_MAX_CONTEXT = 1 << 20
"""Tokens. Some architectures allocate by it alone."""

_INPUTS = {contract.INPUT_IDS, contract.ATTENTION_MASK, contract.POSITION_IDS}
_ENCODER_INPUTS = _INPUTS | {contract.SEGMENT_IDS}


def check_sizes(config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse sizes that the tensors do not bear out, before another library allocates by them.

    Raises UnsupportedCheckpoint.
    """
    largest = max((size for info in tensors.values() for size in info.shape), default=0)
    limits = {
        _LAYERS: len(tensors),
        _CONTEXT: _MAX_CONTEXT,
        **dict.fromkeys((_HIDDEN, _HEADS, _INTERMEDIATE, ("vocab_size",)), largest),
    }
    for names, limit in limits.items():
        for name in names:
            value = config.get(name)
            if isinstance(value, int) and value > limit:
                raise UnsupportedCheckpoint(
                    f"its configuration says {name} = {value}, and its tensors bear out {limit}"
                )


def decoder_arch(graph: onnx.GraphProto, config: Mapping[str, object], weights: int) -> ModelArch:
    """Facts of a decoder with `weights` parameters. Raises UnsupportedCheckpoint for one that devices cannot run."""
    caches = [value for value in graph.input if value.name not in _INPUTS]
    layers = len(caches) // 2
    expected = [contract.past_name(layer, half) for layer in range(layers) for half in contract.HALVES]
    if not layers or {value.name for value in caches} != set(expected):
        names = ", ".join(value.name for value in caches[:4])
        raise UnsupportedCheckpoint(f"optimum's graph of it has the inputs {names or 'of no cache'}")
    shapes = {(_size(value, 1), _size(value, 3)) for value in caches}
    if len(shapes) != 1:
        raise UnsupportedCheckpoint("its layers have caches of different shapes")
    ((kv_heads, head_dim),) = shapes
    logits = next((value for value in graph.output if value.name == contract.LOGITS), None)
    if logits is None:
        raise UnsupportedCheckpoint("optimum's graph of it has no logits")
    return _arch(config, weights, layers=layers, kv_heads=kv_heads, head_dim=head_dim, vocab=_size(logits, 2))


def encoder_arch(graph: onnx.GraphProto, config: Mapping[str, object], weights: int, max_tokens: int) -> ModelArch:
    """Facts of an encoder with `weights` parameters. Raises UnsupportedCheckpoint for one that devices cannot run."""
    strange = [value.name for value in graph.input if value.name not in _ENCODER_INPUTS]
    if strange or all(value.name != contract.HIDDEN_STATES for value in graph.output):
        raise UnsupportedCheckpoint(f"optimum's graph of it is no text encoder ({', '.join(strange) or 'no states'})")
    heads, hidden = _number(config, _HEADS), _number(config, _HIDDEN)
    return _arch(
        dict(config) | {"max_position_embeddings": max_tokens},
        weights,
        layers=_number(config, _LAYERS),
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab=_number(config, ("vocab_size",)),
    )


def _arch(
    config: Mapping[str, object], weights: int, *, layers: int, kv_heads: int, head_dim: int, vocab: int
) -> ModelArch:
    hidden = _number(config, _HIDDEN)
    try:
        return ModelArch(
            model_type=str(config.get("model_type")),
            block="opaque",
            layers=layers,
            hidden=hidden,
            heads=_number(config, _HEADS),
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=_number(config, _INTERMEDIATE, default=4 * hidden),
            vocab=vocab,
            context=_number(config, _CONTEXT),
            norm_eps=0.0,
            rotary=None,
            activation="gelu",
            tied=False,
            weights=weights,
        )
    except ValueError as error:
        raise UnsupportedCheckpoint(f"its configuration contradicts itself: {error}") from error


def _number(config: Mapping[str, object], names: Sequence[str], default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_DIMENSION:
            return value
    if default is None:
        raise UnsupportedCheckpoint(f"its configuration has none of {', '.join(names)}")
    return default


def _size(value: onnx.ValueInfoProto, axis: int) -> int:
    dims = value.type.tensor_type.shape.dim
    if len(dims) <= axis or not dims[axis].dim_value:
        raise UnsupportedCheckpoint(f"optimum's graph of it does not say the size of {value.name}")
    return int(dims[axis].dim_value)
