"""A checkpoint with a LoRA adapter merged into it, row by row as it is read.

What was trained is what is exported. Where a model shares its embedding with its output matrix, PEFT trains them apart:
an adapter that changes one of them leaves the other as it was, so the merged model has both (`tie_word_embeddings` is
false from then on), unless the adapter holds the same values for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import AdapterMismatch, UnsupportedCheckpoint
from export.checkpoints.adapter import Adapter, Layer, LowRank, mismatch
from export.checkpoints.adapter_config import TO_MERGED
from export.checkpoints.extents import require_finite
from export.checkpoints.hf_text import read_text
from export.checkpoints.records import Blocks, Checkpoint, TensorInfo, TextFiles
from export.checkpoints.safetensors_values import Located, read_rows

_OUTPUT_OF = {
    "embed_tokens.weight": "lm_head.weight",
    "wte.weight": "lm_head.weight",
    "word_embeddings.weight": "lm_head.weight",
    "embed_in.weight": "embed_out.weight",
}
"""How transformers' models call their embedding, and the output matrix that may be tied to it."""

_COMPARED_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor of the merged model: what it starts from (the base's, by name, or the adapter's), and what is added."""

    start: str | Located
    update: LowRank | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Names of the embedding and of the output matrix, and whether the base model ties them."""

    embedding: str
    output: str
    tied: bool


class AdaptedCheckpoint:
    """See `Checkpoint`. Made by `open`, which takes over the base checkpoint."""

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self.kind: Literal["gguf", "huggingface"] = base.kind
        self.file = f"{base.file} + {adapter.folder.resolve().name}"
        self._base = base
        self._adapter = adapter
        vocabulary = _vocabulary(base)
        self._changes = _changes(adapter, base.names(), vocabulary)
        self.config = dict(base.config)
        if vocabulary is not None:
            self._separate(vocabulary)
        self._names = dict(base.names()) | {name: self._info(change) for name, change in self._changes.items()}

    @classmethod
    def open(cls, base: Checkpoint, folder: Path) -> Self:
        """Open an adapter for a model. Raises AdapterMismatch, and as `Adapter.open`; the base is closed then."""
        try:
            adapter = Adapter.open(folder)
            try:
                return cls(base, adapter)
            except BaseException:
                adapter.close()
                raise
        except BaseException:
            base.close()
            raise

    @property
    def licence(self) -> str | None:
        """The base model's: an adapter cannot lift its conditions."""
        return self._base.licence

    @cached_property
    def text(self) -> TextFiles:
        """The adapter's own tokenizer and template where it has them; what ended an answer of the base still does."""
        base = self._base.text
        if not (self._adapter.folder / "tokenizer.json").is_file():
            return base
        found = read_text(self._adapter.folder, self.config)
        return replace(found, eos_ids=tuple(dict.fromkeys((*found.eos_ids, *base.eos_ids))))

    def names(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the merged model."""
        return self._names

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of the first axis as float32."""
        change = self._changes.get(name)
        if change is None:
            return self._base.rows(name, start, stop)
        if isinstance(change.start, str):
            values = self._base.rows(change.start, start, stop)
        else:
            values = read_rows(change.start, name, start, stop)
        if change.update is None:
            return values
        return require_finite(change.update.apply(values, start, stop), name, self.file)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """All values as float32."""
        if name not in self._changes:
            return self._base.tensor(name)
        return self.rows(name, 0, self._names[name].shape[0])

    def blocks(self, name: str) -> Blocks | None:
        """The base's blocks of a matrix that the adapter leaves alone."""
        change = self._changes.get(name, Change(name))
        return self._base.blocks(change.start) if isinstance(change.start, str) and change.update is None else None

    def close(self) -> None:
        """Close both."""
        self._adapter.close()
        self._base.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _info(self, change: Change) -> TensorInfo:
        """What `names` says of a changed tensor."""
        if isinstance(change.start, Located):
            return TensorInfo(change.start.shape, "float32")
        info = self._base.names()[change.start]
        return info if change.update is None else TensorInfo(info.shape, "float32")

    def _separate(self, vocabulary: Vocabulary) -> None:
        """Let the configuration say what the adapter made of the embedding and the output matrix."""
        changed = self._changes.get(vocabulary.embedding)
        if changed is not None and isinstance(changed.start, Located):
            self.config["vocab_size"] = changed.start.shape[0]
        output = self._changes.get(vocabulary.output)
        if not vocabulary.tied or (changed is None and output is None):
            return
        if changed is not None and output is not None and _same(changed, output):
            del self._changes[vocabulary.output]
            return
        if self._adapter.config.ensure_weight_tying:
            raise UnsupportedCheckpoint(f"the adapter uses ensure_weight_tying on {vocabulary.embedding}. {TO_MERGED}")
        self._changes.setdefault(vocabulary.output, Change(vocabulary.embedding))
        self.config["tie_word_embeddings"] = False


def _vocabulary(base: Checkpoint) -> Vocabulary | None:
    """The two matrices of a base model, None if it calls its embedding otherwise."""
    names = base.names()
    embedding = next((name for name in names if ".".join(name.split(".")[-2:]) in _OUTPUT_OF), None)
    if embedding is None:
        return None
    output = _OUTPUT_OF[".".join(embedding.split(".")[-2:])]
    return Vocabulary(embedding, output, output not in names or base.config.get("tie_word_embeddings") is True)


def _changes(adapter: Adapter, infos: Mapping[str, TensorInfo], vocabulary: Vocabulary | None) -> dict[str, Change]:
    """The tensors that the adapter changes, each checked against the model. Raises AdapterMismatch."""
    origin = {name: name for name in infos}
    if vocabulary is not None and vocabulary.tied:
        origin[vocabulary.output] = vocabulary.embedding
    resizable = () if vocabulary is None else (vocabulary.embedding, vocabulary.output)
    changes: dict[str, Change] = {}
    for given, tensor in adapter.whole.items():
        name = _resolve(given, origin)
        shape = infos[origin[name]].shape
        grown = name in resizable and len(tensor.shape) == 2 and tensor.shape[1:] == shape[1:]
        if tensor.shape != shape and not grown:
            raise mismatch(given, tensor.shape, shape)
        changes[name] = Change(tensor)
    shapes: dict[str, tuple[int, ...]] = {}
    targets = {module: _resolve(f"{module}.weight", origin) for module in adapter.layers}
    for name in targets.values():
        change = changes.get(name, Change(origin[name]))
        changes[name] = change
        shapes[name] = infos[change.start].shape if isinstance(change.start, str) else change.start.shape
    transposed = _transposed(adapter, {module: shapes[name] for module, name in targets.items()})
    for module, name in targets.items():
        update = adapter.layers[module].onto(transposed=transposed[module])
        changes[name] = Change(changes[name].start, update)
    return changes


def _resolve(name: str, known: Mapping[str, str]) -> str:
    """The model's tensor that the adapter means: models saved without their head omit the first part of the name."""
    for candidate in (name, name.partition(".")[2]):
        if candidate in known:
            return candidate
    raise AdapterMismatch(f"it changes {name!r}, which the model does not have")


def _transposed(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, bool]:
    """Which matrices are stored [inputs, outputs]: embeddings, and GPT-2's Conv1D.

    A square one does not show it; `fan_in_fan_out` says it, but of the last layer that PEFT wrapped: where other layers
    contradict it, nothing is certain. Raises AdapterMismatch for a shape that is neither.
    """
    found: dict[str, bool] = {}
    flag, unsure = adapter.config.fan_in_fan_out, None
    linears: set[bool] = set()
    for module, layer in adapter.layers.items():
        shape = shapes[module]
        forms = _forms(layer, shape)
        if not forms:
            raise mismatch(f"{module}.weight", (layer.outputs, layer.inputs), shape)
        found[module] = flag if len(forms) == 2 else forms[0]
        if len(forms) == 2:
            unsure = module
        elif not layer.is_embedding:
            linears.add(forms[0])
    if unsure is not None and linears - {flag}:
        raise UnsupportedCheckpoint(
            f"the adapter does not say which way round {unsure} is: its fan_in_fan_out is not true of all layers. "
            f"{TO_MERGED}"
        )
    return found


def _forms(layer: Layer, shape: tuple[int, ...]) -> list[bool]:
    """Whether the matrix can be [outputs, inputs] (False) and [inputs, outputs] (True)."""
    plain, turned = (layer.outputs, layer.inputs), (layer.inputs, layer.outputs)
    if layer.is_embedding:
        return [True] if shape == turned else []
    return [form for form, expected in ((False, plain), (True, turned)) if shape == expected]


def _same(one: Change, other: Change) -> bool:
    """Whether both are matrices of the adapter with equal values. Read in pieces."""
    if not isinstance(one.start, Located) or not isinstance(other.start, Located) or one.update or other.update:
        return False
    if one.start.shape != other.start.shape:
        return False
    rows = one.start.shape[0]
    for start in range(0, rows, _COMPARED_ROWS):
        stop = min(rows, start + _COMPARED_ROWS)
        if not np.array_equal(read_rows(one.start, "", start, stop), read_rows(other.start, "", start, stop)):
            return False
    return True
