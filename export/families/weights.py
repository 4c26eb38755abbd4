"""A checkpoint's tensors by our names: checked against the architecture first, then read piece by piece."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from edgekit.errors import MissingTensor, ShapeMismatch, UnexpectedTensor, UnsupportedCheckpoint
from export.checkpoints import Blocks, Checkpoint, TensorInfo
from export.families import Family, of, shapes
from export.families.parts import Cut, Part

Floats = npt.NDArray[np.float32]
_NUMBER = re.compile(r"\.(\d{1,9})(?=\.)", re.ASCII)
"""A layer's number in a tensor's name, or a head's after it."""


class Weights(Protocol):
    """A model's tensors by our names, read piece by piece: a checkpoint's, or another view of them."""

    def has(self, name: str) -> bool:
        """Whether the model has the tensor."""

    def shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of a matrix."""

    def dims(self, name: str) -> tuple[int, ...]:
        """The shape of any tensor."""

    def dtype(self, name: str) -> str:
        """How it is stored, for instance "float16" or "Q4_1"."""

    def info(self, name: str) -> TensorInfo:
        """Type and block size as stored (the shape may be another)."""

    def has_blocks(self, name: str) -> bool:
        """Whether `blocks` may give its blocks."""

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` as float32."""

    def tensor(self, name: str) -> Floats:
        """A whole tensor as float32."""

    def blocks(self, name: str) -> Blocks | None:
        """The blocks of a matrix that is stored in blocks, else None."""


@dataclass(frozen=True)
class _Found:
    """Where one of our tensors is: their names (several if stacked, none if constant), which rows, and our shape."""

    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    part: Part
    cut: Cut | None


class CheckpointWeights:
    """Made once per checkpoint. Raises MissingTensor, UnexpectedTensor or ShapeMismatch."""

    def __init__(self, checkpoint: Checkpoint, arch: ModelArch) -> None:
        self._checkpoint = checkpoint
        self._infos = checkpoint.names()
        family = of(checkpoint.config)
        names = _Names(family, self._infos, arch)
        self._found = {name: _find(name, shape, arch, names, self._infos) for name, shape in shapes(arch)}
        used = {theirs for found in self._found.values() for theirs in found.theirs}
        if arch.tied:  # transformers ignores that copy of the embedding too
            used.update(names.there("lm_head.weight"))
        for theirs in self._infos:
            if theirs not in used and not names.ignores(theirs):
                raise UnexpectedTensor(theirs)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the tensor."""
        return name in self._found

    def shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of a matrix."""
        rows, columns = self._found[name].shape
        return rows, columns

    def dims(self, name: str) -> tuple[int, ...]:
        """The shape of any tensor."""
        return self._found[name].shape

    def dtype(self, name: str) -> str:
        """How the checkpoint stores it, for instance "float16" or "Q4_1"."""
        return self.info(name).dtype

    def info(self, name: str) -> TensorInfo:
        """What the checkpoint says of it: type and block size (the shape is theirs)."""
        return self._infos[self._found[name].theirs[0]]

    def has_blocks(self, name: str) -> bool:
        """Whether `blocks` may give its blocks: it is read as stored, but for which rows."""
        return not _changed(self._found[name].part)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` as float32."""
        found = self._found[name]
        if found.part.transposed or found.part.stacked:
            return self.tensor(name)[start:stop]
        if found.cut is None:
            values = self._checkpoint.rows(found.theirs[0], start, stop)
        else:
            wanted = found.cut.rows[start:stop]
            first, last = (int(wanted.min()), int(wanted.max())) if len(wanted) else (0, -1)
            values = self._checkpoint.rows(found.theirs[0], first, last + 1)
            if last - first + 1 != len(wanted) or (np.diff(wanted) != 1).any():
                values = values[wanted - first]
        return values + np.float32(found.part.plus) if found.part.plus else values

    def tensor(self, name: str) -> Floats:
        """A whole tensor as float32."""
        found = self._found[name]
        if not found.theirs:
            return np.full(found.shape, found.part.plus, np.float32)
        if found.part.stacked:
            return np.stack([self._checkpoint.tensor(theirs) for theirs in found.theirs])
        if found.part.transposed:
            whole = self._checkpoint.tensor(found.theirs[0]).T
            return np.ascontiguousarray(whole if found.cut is None else whole[found.cut.rows])
        return self.rows(name, 0, found.shape[0])

    def blocks(self, name: str) -> Blocks | None:
        """The checkpoint's own blocks of a quantised matrix, None if it is not stored in blocks."""
        found = self._found[name]
        if _changed(found.part):
            return None
        blocks = self._checkpoint.blocks(found.theirs[0])
        if blocks is None or found.cut is None:
            return blocks
        rows = found.cut.rows
        offsets = None if blocks.offsets is None else blocks.offsets[rows]
        return Blocks(blocks.codes[rows], blocks.scales[rows], offsets, blocks.bits, blocks.block_size)


class _Names:
    """The names of one family, and which of them a checkpoint uses."""

    def __init__(self, family: Family, infos: Mapping[str, TensorInfo], arch: ModelArch) -> None:
        self._family = family
        self._infos = infos
        self._arch = arch
        self._prefix = self._find_prefix()

    def part(self, ours: str) -> tuple[Part, str | None]:
        """The part that `ours` is, and its layer's number. Raises UnsupportedCheckpoint if the family has none."""
        layer = _NUMBER.search(ours)
        pattern = ours if layer is None else ours.replace(layer[0], ".{i}", 1)
        found = self._family.tensors.get(pattern)
        if found is None:
            raise UnsupportedCheckpoint(f"{self._family.model_type} models have no {pattern}")
        part = Part((found,)) if isinstance(found, str) else found
        return part, None if layer is None else layer[1]

    def candidates(self, ours: str) -> list[str]:
        """Names that the tensor may have in this checkpoint."""
        part, layer = self.part(ours)
        return [self._prefix + theirs.replace("{i}", layer or "") for theirs in part.theirs]

    def there(self, ours: str) -> list[str]:
        """Those of them that are there; none if the family has no such tensor."""
        return [name for name in self.candidates(ours) if name in self._infos] if ours in self._family.tensors else []

    def ignores(self, theirs: str) -> bool:
        """Whether a tensor is known and not needed: buffers, and other parts of a model whose text part we take."""
        if not theirs.startswith(self._prefix):
            return any(theirs.startswith(start) for start in self._family.ignored if start.endswith("."))
        bare = theirs.removeprefix(self._prefix)
        if any(bare.startswith(start) for start in self._family.ignored if start.endswith(".")):
            return True
        layer = _NUMBER.search(bare)
        if layer is not None and int(layer[1]) >= self._arch.layers:
            return False
        return (bare if layer is None else bare.replace(layer[0], ".{i}", 1)) in self._family.ignored

    def _find_prefix(self) -> str:
        """The prefix under which the embedding is."""
        part, _ = self.part("embed.weight")
        for prefix in self._family.prefixes:
            if any(prefix + theirs in self._infos for theirs in part.theirs):
                return prefix
        return self._family.prefixes[0]


def _find(name: str, shape: tuple[int, ...], arch: ModelArch, names: _Names, infos: Mapping[str, TensorInfo]) -> _Found:
    part, _ = names.part(name)
    candidates = names.candidates(name)
    if not candidates:
        return _Found((), shape, part, None)
    if part.stacked:
        stack = tuple(candidates[0].replace("{h}", str(h)) for h in range(shape[0]))
        for theirs in stack:
            _check_shape(theirs, infos, shape[1:])
        return _Found(stack, shape, part, None)
    theirs = next((theirs for theirs in candidates if theirs in infos), candidates[0])
    cut = None if part.cut is None else part.cut(arch)
    expected = shape if cut is None else (cut.total, *shape[1:])
    _check_shape(theirs, infos, expected[::-1] if part.transposed else expected)
    return _Found((theirs,), shape, part, cut)


def _changed(part: Part) -> bool:
    return part.transposed or part.stacked or part.plus != 0


def _check_shape(theirs: str, infos: Mapping[str, TensorInfo], expected: tuple[int, ...]) -> None:
    if theirs not in infos:
        raise MissingTensor(theirs)
    if infos[theirs].shape != expected:
        raise ShapeMismatch(theirs, str(list(infos[theirs].shape)), str(list(expected)))
