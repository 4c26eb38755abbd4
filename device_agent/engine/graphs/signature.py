"""What a graph must look like before it is used: names, types and shapes, by the manifest. Pure.

The manifest says how large buffers are; the graph says what it reads and writes. Where they
disagree, whoever made the bundle could have onnxruntime read beyond a buffer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit import contract
from edgekit.adapter import linears
from edgekit.arch import ModelArch
from edgekit.contract import CacheType

FREE = None
"""A dimension that may have any length."""

_INT64, _FLOAT = "tensor(int64)", "tensor(float)"
_CACHES: Mapping[CacheType, str] = {"float32": _FLOAT, "int8": "tensor(int8)"}
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or output as onnxruntime names it; a dimension is a number, or text or None if it is free."""

    name: str
    type: str
    shape: tuple[object, ...]


@dataclass(frozen=True)
class Signature:
    """What must be there, and what may be there: type and shape by name, and the number of cached layers."""

    needed: Mapping[str, tuple[str, Shape]]
    optional: Mapping[str, tuple[str, Shape]]
    layers: int = 0
    cache: tuple[str, Shape] = (_FLOAT, ())

    def problem(self, given: Sequence[GraphValue]) -> str:
        """Where a graph's inputs and outputs depart from this; empty if nowhere."""
        fewest = len(self.needed) + 4 * self.layers
        # Before there is a name for each layer of an absurd manifest.
        if not fewest <= len(given) <= fewest + len(self.optional):
            return f"it has {len(given)} inputs and outputs, not those of {self.layers} layers"
        needed = dict(self.needed) | dict.fromkeys(_cache_names(self.layers), self.cache)
        missing = needed.keys() - {value.name for value in given}
        if missing:
            return f"it has no {min(missing)!r}"
        known = needed | dict(self.optional)
        return next((wrong for value in given if (wrong := _wrong(value, known))), "")


def shared(arch: ModelArch, cache: CacheType = "float32") -> Signature:
    """A decoder whose cache is appended to in place."""
    keep: dict[str, tuple[str, Shape]] = {contract.LOGITS_TO_KEEP: (_INT64, ())}
    return Signature(_decoder(arch) | keep, {}, arch.layers, _cache(arch, cache))


def adapted(arch: ModelArch, cache: CacheType = "float32") -> Signature:
    """The same with a LoRA branch beside every linear."""
    branches: dict[str, tuple[str, Shape]] = {}
    for linear, (inputs, outputs) in linears(arch).items():
        a, b = contract.lora_names(linear)
        branches |= {a: (_FLOAT, (inputs, FREE)), b: (_FLOAT, (FREE, outputs))}
    plain = shared(arch, cache)
    return Signature({**plain.needed, **branches}, {}, arch.layers, plain.cache)


def prompt(arch: ModelArch, cache: CacheType = "float32") -> Signature:
    """A graph that reads prompts into the cache of a decoder, and does nothing else."""
    return Signature(_tokens(), {}, arch.layers, _cache(arch, cache))


def concat(arch: ModelArch) -> Signature:
    """A decoder that returns a longer cache each time."""
    optional: dict[str, tuple[str, Shape]] = {
        contract.LOGITS_TO_KEEP: (_INT64, ()),
        contract.POSITION_IDS: (_INT64, (FREE, FREE)),
    }
    return Signature(_decoder(arch), optional, arch.layers, _cache(arch, "float32"))


def encoder(arch: ModelArch) -> Signature:
    """A model that turns tokens into states."""
    ids: tuple[str, Shape] = (_INT64, (FREE, FREE))
    return Signature(
        {
            contract.INPUT_IDS: ids,
            contract.ATTENTION_MASK: ids,
            contract.HIDDEN_STATES: (_FLOAT, (FREE, FREE, arch.hidden)),
        },
        {contract.SEGMENT_IDS: ids, contract.POSITION_IDS: ids},
    )


def _decoder(arch: ModelArch) -> dict[str, tuple[str, Shape]]:
    return _tokens() | {contract.LOGITS: (_FLOAT, (FREE, FREE, arch.vocab))}


def _tokens() -> dict[str, tuple[str, Shape]]:
    return dict.fromkeys((contract.INPUT_IDS, contract.ATTENTION_MASK), (_INT64, (FREE, FREE)))


def _cache(arch: ModelArch, kind: CacheType) -> tuple[str, Shape]:
    return _CACHES[kind], (FREE, arch.kv_heads, FREE, arch.head_dim)


def _cache_names(layers: int) -> list[str]:
    return [
        name(layer, half)
        for layer in range(layers)
        for half in contract.HALVES
        for name in (contract.past_name, contract.present_name)
    ]


def _wrong(value: GraphValue, known: Mapping[str, tuple[str, Shape]]) -> str:
    if value.name not in known:
        return f"it has {value.name!r}"
    kind, shape = known[value.name]
    same = len(shape) == len(value.shape) and all(
        want is FREE or want == have for want, have in zip(shape, value.shape, strict=True)
    )
    return "" if value.type == kind and same else f"{value.name} is {value.type} {list(value.shape)}"
