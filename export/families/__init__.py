"""Model families: configuration to ModelArch, and a table of tensor names. One file each, all data.

`of` finds the family of a checkpoint; `Weights` reads a checkpoint's tensors by our names. Our names:

    embed.weight                     [vocab, hidden]
    layers.{i}.attention_norm.weight [hidden]         before attention
    layers.{i}.q|k|v.weight|bias     [heads * head_dim, hidden]
    layers.{i}.o.weight|bias         [hidden, heads * head_dim]
    layers.{i}.mlp_norm.weight       [hidden]         before the MLP
    layers.{i}.gate|up.weight|bias   [intermediate, hidden]
    layers.{i}.down.weight|bias      [hidden, intermediate]
    norm.weight                      [hidden]         after the last layer
    lm_head.weight                   [vocab, hidden]  absent if tied to the embedding
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from edgekit.errors import MissingTensor, ShapeMismatch, UnexpectedTensor, UnknownFamily, UnsupportedCheckpoint
from export.checkpoints import Blocks, Checkpoint
from export.families import llama
from export.families.config import Config

Floats = npt.NDArray[np.float32]
_LAYER = re.compile(r"\.(\d{1,9})\.", re.ASCII)
"""A layer's number in a tensor's name."""


@dataclass(frozen=True)
class Family:
    """`names` is what users call these models; `tensors` maps their names to ours, None for "known, not needed"."""

    model_type: str
    names: tuple[str, ...]
    checked: str
    arch: Callable[[Config], ModelArch]
    tensors: Mapping[str, str | None]


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", llama.NAMES, llama.CHECKED, llama.arch, llama.TENSORS),
}


def of(config: Mapping[str, object]) -> Family:
    """The family of `config["model_type"]`. Raises UnknownFamily, which names those we know."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnknownFamily(str(model_type), ", ".join(sorted(FAMILIES)))
    return FAMILIES[model_type]


def arch_of(checkpoint: Checkpoint) -> ModelArch:
    """The facts of a checkpoint. Raises UnknownFamily or UnsupportedCheckpoint (a setting we cannot carry)."""
    family = of(checkpoint.config)
    try:
        return family.arch(Config(checkpoint.config))
    except ValueError as error:
        raise UnsupportedCheckpoint(f"its configuration contradicts itself: {error}") from error


def shapes(arch: ModelArch) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor that the architecture has, by our name: one by one, since a configuration may claim any number."""
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    yield "embed.weight", (arch.vocab, arch.hidden)
    yield "norm.weight", (arch.hidden,)
    if not arch.tied:
        yield "lm_head.weight", (arch.vocab, arch.hidden)
    linears = {
        "q": (query, arch.hidden, arch.attention_bias),
        "k": (key, arch.hidden, arch.attention_bias),
        "v": (key, arch.hidden, arch.attention_bias),
        "o": (arch.hidden, query, arch.attention_bias),
        "gate": (arch.intermediate, arch.hidden, arch.mlp_bias),
        "up": (arch.intermediate, arch.hidden, arch.mlp_bias),
        "down": (arch.hidden, arch.intermediate, arch.mlp_bias),
    }
    for i in range(arch.layers):
        yield f"layers.{i}.attention_norm.weight", (arch.hidden,)
        yield f"layers.{i}.mlp_norm.weight", (arch.hidden,)
        for name, (rows, columns, bias) in linears.items():
            yield f"layers.{i}.{name}.weight", (rows, columns)
            if bias:
                yield f"layers.{i}.{name}.bias", (rows,)


class Weights:
    """A checkpoint's tensors by our names, checked against the architecture when it is made.

    Raises MissingTensor, UnexpectedTensor or ShapeMismatch.
    """

    def __init__(self, checkpoint: Checkpoint, arch: ModelArch) -> None:
        self._checkpoint = checkpoint
        self._infos = checkpoint.names()
        self._theirs = _translate(self._infos, of(checkpoint.config), arch)
        expected = {"lm_head.weight"} if arch.tied else set()  # transformers ignores that copy of the embedding too
        for name, shape in shapes(arch):
            if name not in self._theirs:
                raise MissingTensor(_their_name(of(checkpoint.config), name))
            found = self._infos[self._theirs[name]].shape
            if found != shape:
                raise ShapeMismatch(self._theirs[name], str(list(found)), str(list(shape)))
            expected.add(name)
        for name, theirs in self._theirs.items():
            if name not in expected:
                raise UnexpectedTensor(theirs)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the tensor."""
        return name in self._theirs

    def shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of a matrix."""
        rows, columns = self._infos[self._theirs[name]].shape
        return rows, columns

    def dtype(self, name: str) -> str:
        """How the checkpoint stores it, for instance "float16" or "Q4_1"."""
        return self._infos[self._theirs[name]].dtype

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` as float32."""
        return self._checkpoint.rows(self._theirs[name], start, stop)

    def tensor(self, name: str) -> Floats:
        """A whole tensor as float32."""
        return self._checkpoint.tensor(self._theirs[name])

    def blocks(self, name: str) -> Blocks:
        """The checkpoint's own blocks of a quantised matrix."""
        blocks = self._checkpoint.blocks(self._theirs[name])
        if blocks is None:
            raise UnsupportedCheckpoint(f"{self._theirs[name]} is not stored in blocks")
        return blocks


def _translate(infos: Mapping[str, object], family: Family, arch: ModelArch) -> dict[str, str]:
    """Our names of all tensors that we need; raises UnexpectedTensor for a name that the family does not know."""
    ours_of: dict[str, str] = {}
    for theirs in infos:
        layer = _LAYER.search(theirs)
        pattern = theirs if layer is None else theirs.replace(f".{layer[1]}.", ".{i}.", 1)
        if pattern not in family.tensors or (layer is not None and int(layer[1]) >= arch.layers):
            raise UnexpectedTensor(theirs)
        ours = family.tensors[pattern]
        if ours is not None:
            ours_of[ours if layer is None else ours.replace("{i}", layer[1])] = theirs
    return ours_of


def _their_name(family: Family, ours: str) -> str:
    layer = _LAYER.search(ours)
    pattern = ours if layer is None else ours.replace(f".{layer[1]}.", ".{i}.", 1)
    theirs = next(key for key, value in family.tensors.items() if value == pattern)
    return theirs if layer is None else theirs.replace("{i}", layer[1])
