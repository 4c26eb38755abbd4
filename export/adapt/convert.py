"""PEFT's tensors as the inputs of a graph's LoRA branches (export.graph.adapted). Pure, but for reading tensors.

PEFT knows modules of transformers' model, the graph knows linears: one for all matrices that read the same input. A
linear's A has the ranks of its modules side by side, and its B is block-diagonal:

    x [A_q A_k A_v] diag(B_q, B_k, B_v)

Where the model has one module for several of our matrices (Phi-3's qkv_proj), they share its A. `alpha`, and
`use_rslora`, are folded into B.

Both are float32 in the file, since that is what the graph reads, but rounded to the digits of a bfloat16 unless told
otherwise: half of each number is then zeros, which a release does not carry. A LoRA of rank 8 on queries and values of
SmolLM2-135M is 2.95 MB on disk; published it takes 0.63 MB, and 1.69 MB with all digits. Its answers move by 2.5e-8
nats, of 0.0048 that the adapter itself moves them (138 tokens, activations in float).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekit.adapter import MAX_RANK, linear_parts, linears
from edgekit.arch import ModelArch
from edgekit.errors import AdapterMismatch, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.adapter import Adapter, Layer, mismatch
from export.checkpoints.safetensors_values import read_tensor
from export.families import Family, of
from export.families.parts import Part

Floats = npt.NDArray[np.float32]
Digits = Literal["bfloat16", "float32"]
DIGITS: tuple[Digits, ...] = ("bfloat16", "float32")

_MERGE = (
    "Only low-rank changes of linear layers can stand beside a base; merge it: edgekit export BASE --adapter FOLDER"
)


@dataclass(frozen=True)
class Update:
    """What a module adds to one of our matrices: its rows `rows` of scaling * B A."""

    layer: Layer
    rows: npt.NDArray[np.int64]
    digits: Digits

    def a(self) -> Floats:
        """[rank, inputs]."""
        return self._rounded(read_tensor(self.layer.a, f"{self.layer.module}.lora_A"))

    def b(self) -> Floats:
        """[outputs, rank], scaled."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = read_tensor(self.layer.b, f"{self.layer.module}.lora_B") * np.float32(self.layer.scaling)
        if not np.isfinite(scaled).all():
            raise CorruptCheckpoint(f"{self.layer.module} holds values that are no numbers", self.layer.b.file.name)
        return self._rounded(scaled[self.rows])

    def _rounded(self, values: Floats) -> Floats:
        return values if self.digits == "float32" else to_bfloat16(values)


def to_bfloat16(values: Floats) -> Floats:
    """The nearest numbers with eight bits of mantissa, ties to even; still float32."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    kept = bits >> np.uint32(16)
    # More than half a step, or half a step from an odd number: adding carries into what is kept.
    rounded: Floats = ((bits + (kept & np.uint32(1)) + np.uint32(0x7FFF)) & np.uint32(0xFFFF_0000)).view(np.float32)
    return rounded


Updates = Mapping[str, Mapping[str, Update]]
"""By linear and by our matrix, for instance "layers.0.qkv" and "layers.0.q"; only what is changed."""


@dataclass(frozen=True)
class Branch:
    """Inputs of one linear's branch: `a` [inputs, rank], `b` [rank, outputs]."""

    a: Floats
    b: Floats


def updates(adapter: Adapter, arch: ModelArch, digits: Digits) -> Updates:
    """What the adapter changes. Nothing is read yet.

    Raises AdapterMismatch (no such module, or another shape), UnsupportedCheckpoint (not a LoRA of linears alone) or
    UnknownFamily.
    """
    _refuse(adapter)
    places = _places(of({"model_type": arch.model_type}), arch)
    found: dict[str, dict[str, Update]] = {}
    for module, layer in adapter.layers.items():
        known = next((name for name in (module, module.partition(".")[2]) if name in places), None)
        if known is None:
            raise AdapterMismatch(f"it changes {module!r}, which is no linear of this model's layers. {_MERGE}")
        for place in places[known]:
            _check(layer, place)
            found.setdefault(place.linear, {})[place.part] = Update(layer, place.rows, digits)
    return found


def branch(changed: Mapping[str, Update], arch: ModelArch, linear: str) -> Branch:
    """The inputs of one linear. Raises CorruptCheckpoint for values that are no numbers."""
    parts = linear_parts(arch, linear)
    modules = {changed[part].layer.module: changed[part] for part in parts if part in changed}
    starts = dict(zip(modules, np.cumsum([0, *(each.layer.rank for each in modules.values())]), strict=False))
    rank = sum(each.layer.rank for each in modules.values())
    if rank > MAX_RANK:
        raise UnsupportedCheckpoint(f"the adapter's ranks of {linear} make {rank} together, and {MAX_RANK} are allowed")
    b = np.zeros((rank, sum(outputs for _, outputs in parts.values())), np.float32)
    at = 0
    for part, (_, outputs) in parts.items():
        if part in changed:
            start = int(starts[changed[part].layer.module])
            b[start : start + changed[part].layer.rank, at : at + outputs] = changed[part].b().T
        at += outputs
    a = np.concatenate([each.a() for each in modules.values()]).T
    return Branch(np.ascontiguousarray(a), b)


def _refuse(adapter: Adapter) -> None:
    """What is more than a sum of low-rank products, by name."""
    if adapter.whole:
        raise UnsupportedCheckpoint(f"the adapter has {min(adapter.whole)!r}, which was trained whole. {_MERGE}")
    for module, layer in adapter.layers.items():
        if layer.magnitude is not None:
            raise UnsupportedCheckpoint(f"the adapter has DoRA on {module}. {_MERGE}")
        if layer.is_embedding:
            raise UnsupportedCheckpoint(f"the adapter changes the embedding {module}. {_MERGE}")


@dataclass(frozen=True)
class _Place:
    """Where a module's product goes: rows of `outputs` that are one of our matrices."""

    linear: str
    part: str
    inputs: int
    outputs: int
    rows: npt.NDArray[np.int64]


def _places(family: Family, arch: ModelArch) -> dict[str, list[_Place]]:
    """By the names that a module may have."""
    found: dict[str, list[_Place]] = {}
    for linear in linears(arch):
        for part, (inputs, outputs) in linear_parts(arch, linear).items():
            layer, kind = part.split(".")[1:]
            stored = family.tensors[f"layers.{{i}}.{kind}.weight"]
            source = Part((stored,)) if isinstance(stored, str) else stored
            cut = None if source.cut is None else source.cut(arch)
            rows, total = (np.arange(outputs), outputs) if cut is None else (cut.rows, cut.total)
            for name in _names(family, source, layer):
                found.setdefault(name, []).append(_Place(linear, part, inputs, total, rows))
    return found


def _names(family: Family, source: Part, layer: str) -> Iterator[str]:
    for theirs in source.theirs:
        for prefix in family.prefixes:
            yield prefix + theirs.replace("{i}", layer).removesuffix(".weight")


def _check(layer: Layer, place: _Place) -> None:
    if (layer.outputs, layer.inputs) != (place.outputs, place.inputs):
        raise mismatch(f"{layer.module}.weight", (layer.outputs, layer.inputs), (place.outputs, place.inputs))
