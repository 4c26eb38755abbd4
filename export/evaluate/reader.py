"""A bundle as something that turns ids into logits: what devices compute, without a device's loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import BundleError, CorruptBundle, UsageError
from export.sessions import open_session

Floats = npt.NDArray[np.float32]
Cache = list[npt.NDArray[np.generic]]
_POSITION_IDS = "position_ids"
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


class LogitSource(Protocol):
    """Reads independent windows of text."""

    def windows(self, windows: Sequence[Sequence[int]]) -> Iterator[Floats]:
        """For each window of ids, in turn, the logits after every one of them: [tokens, vocab]."""


class Reader(Protocol):
    """Reads one growing sequence; what it remembers of the sequence before is its own affair."""

    @property
    def context_tokens(self) -> int:
        """The longest sequence that it reads."""

    def after(self, ids: Sequence[int], keep: int) -> Floats:
        """Logits after each of the last `keep` of `ids`: [keep, vocab]."""


@dataclass(frozen=True)
class _PastInput:
    """A cache input: `shape` of it when it holds nothing, and the axis along which it grows."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...]
    axis: int


class BundleReader:
    """A whole bundle in one onnxruntime session. `after` keeps the last sequence's cache and reads only what is new.

    Raises CorruptBundle if onnxruntime does not take the graph, and UsageError if it makes no text.
    """

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        self._name = str(bundle.folder)
        self._arch = bundle.manifest.arch
        path = bundle.path(contract.MODEL_FILE)
        try:
            self._session = open_session(path, threads=threads)
        except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
            raise CorruptBundle(self._name, f"onnxruntime cannot load it: {error}"[:1000]) from error
        inputs = self._session.get_inputs()
        outputs = {value.name for value in self._session.get_outputs()}
        if contract.LOGITS not in outputs:
            raise UsageError(f"{bundle.folder} makes no text that could be measured: its graph has no logits.")
        self._past = [_past_input(value) for value in inputs if value.name.startswith("past_key_values.")]
        self._fetched = [contract.LOGITS, *(each.name.replace("past_key_values", "present") for each in self._past)]
        named = {value.name for value in (*inputs, *self._session.get_overridable_initializers())}
        self._takes_keep = contract.LOGITS_TO_KEEP in named
        self._takes_positions = _POSITION_IDS in named
        self._ids: list[int] = []
        self._cache = self._empty()

    @property
    def context_tokens(self) -> int:
        """As `Reader`."""
        return self._arch.context

    @property
    def vocab(self) -> int:
        """Width of the logits."""
        return self._arch.vocab

    def windows(self, windows: Sequence[Sequence[int]]) -> Iterator[Floats]:
        """As `LogitSource`. Raises BundleError if onnxruntime fails or a logit is not a number."""
        for ids in windows:
            yield self._run(ids, self._empty(), len(ids))[0]

    def after(self, ids: Sequence[int], keep: int) -> Floats:
        """As `Reader`. Raises as `windows` does, and ValueError for a sequence that cannot be read."""
        if not 0 < keep <= len(ids):
            raise ValueError(f"there are no logits after {keep} of {len(ids)} tokens")
        known = min(common_prefix(ids, self._ids), len(ids) - keep)
        past = [
            np.ascontiguousarray(np.take(held, range(known), axis=each.axis) if known < len(self._ids) else held)
            for each, held in zip(self._past, self._cache, strict=True)
        ]
        logits, self._cache = self._run(ids[known:], past, keep)
        self._ids = list(ids)
        return logits

    def _empty(self) -> Cache:
        return [np.zeros(each.shape, each.dtype) for each in self._past]

    def _run(self, ids: Sequence[int], past: Cache, keep: int) -> tuple[Floats, Cache]:
        held = past[0].shape[self._past[0].axis] if past else 0
        total = held + len(ids)
        # Checked here because GatherBlockQuantized (onnxruntime 1.32) reads whatever memory a wrong id points to.
        if total > self._arch.context or min(ids) < 0 or max(ids) >= self._arch.vocab:
            raise ValueError(f"{total} tokens, ids up to {max(ids)}: the model takes {self._arch.context} tokens")
        feed: dict[str, npt.NDArray[np.generic]] = {
            contract.INPUT_IDS: np.asarray([ids], np.int64),
            contract.ATTENTION_MASK: np.ones((1, total), np.int64),
            **{each.name: values for each, values in zip(self._past, past, strict=True)},
        }
        if self._takes_keep:
            feed[contract.LOGITS_TO_KEEP] = np.asarray(keep, np.int64)
        if self._takes_positions:
            feed[_POSITION_IDS] = np.arange(held, total, dtype=np.int64)[None]
        try:
            logits, *presents = self._session.run(self._fetched, feed)
        except Exception as error:  # as above
            raise BundleError(self._name, f"onnxruntime cannot compute with it: {error}"[:1000]) from error
        kept: Floats = logits[0, -keep:]
        if not np.isfinite(kept).all():
            raise BundleError(self._name, "it computes logits that are not finite numbers")
        return kept, presents


def _past_input(value: onnxruntime.NodeArg) -> _PastInput:
    """Symbolic axes are the batch (first) and the tokens; the graph itself says which, so any cache layout works."""
    axis = next(at for at, size in enumerate(value.shape) if at and not isinstance(size, int))
    shape = tuple(size if isinstance(size, int) else int(at == 0) for at, size in enumerate(value.shape))
    return _PastInput(value.name, _TYPES[value.type], shape, axis)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids at the start are the same."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
