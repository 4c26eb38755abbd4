"""Running a graph at export: a decoder whose cache grows by concatenation, or an encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edgekit import contract
from edgekit.arch import ModelArch
from export.segments import Cache
from export.sessions import open_session

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
_FLOAT_ACTIVATIONS = 1
"""MatMulNBits accuracy_level: compute in float32."""


class Decoder:
    """A decoder's file, run like `export.segments.Segments`: ids in, logits of all positions and a new cache out.

    `exact` keeps activations in float instead of rounding them to INT8.
    """

    def __init__(self, path: Path, arch: ModelArch, *, exact: bool = False) -> None:
        self._session = _session(path, exact=exact)
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._arch = arch
        places = [(layer, half) for layer in range(arch.layers) for half in contract.HALVES]
        self._pasts = [contract.past_name(*place) for place in places]
        self._outputs = [contract.LOGITS, *(contract.present_name(*place) for place in places)]

    def empty(self) -> Cache:
        """The cache of a sequence with no tokens."""
        shape = (1, self._arch.kv_heads, 0, self._arch.head_dim)
        return [np.zeros(shape, np.float32) for _ in self._pasts]

    def run(self, sequences: Sequence[Sequence[int]], pasts: Sequence[Cache]) -> tuple[list[Floats], list[Cache]]:
        """Append ids to each sequence, whose cache is the past beside it: logits [tokens, vocab] and new caches."""
        results = [self._append(ids, past) for ids, past in zip(sequences, pasts, strict=True)]
        return [logits for logits, _ in results], [cache for _, cache in results]

    def _append(self, ids: Sequence[int], past: Cache) -> tuple[Floats, Cache]:
        start = past[0].shape[2]
        feeds: dict[str, npt.NDArray[np.generic]] = {
            contract.INPUT_IDS: np.asarray([ids], np.int64),
            contract.ATTENTION_MASK: np.ones((1, start + len(ids)), np.int64),
            contract.POSITION_IDS: np.arange(start, start + len(ids), dtype=np.int64)[None],
        }
        given = {name: array for name, array in feeds.items() if name in self._inputs}
        logits, *cache = self._session.run(self._outputs, given | dict(zip(self._pasts, past, strict=True)))
        return logits[0], cache


class Encoder:
    """An encoder's file. `exact` as in `Decoder`."""

    def __init__(self, path: Path, *, exact: bool = False) -> None:
        self._session = _session(path, exact=exact)
        self._inputs = {value.name for value in self._session.get_inputs()}

    def states(self, ids: Sequence[int]) -> Floats:
        """The last layer's states [tokens, hidden] of one text."""
        row = np.asarray([ids], np.int64)
        feeds: Mapping[str, Ids] = {
            contract.INPUT_IDS: row,
            contract.ATTENTION_MASK: np.ones_like(row),
            contract.SEGMENT_IDS: np.zeros_like(row),
            contract.POSITION_IDS: np.arange(len(ids), dtype=np.int64)[None],
        }
        given = {name: array for name, array in feeds.items() if name in self._inputs}
        states: Floats = self._session.run([contract.HIDDEN_STATES], given)[0][0]
        return states


def _session(path: Path, *, exact: bool) -> onnxruntime.InferenceSession:
    file = path
    if exact:  # beside the original, because its weights are found from where it is
        model = onnx.load(str(path), load_external_data=False)
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                    attribute.i = _FLOAT_ACTIVATIONS
        file = path.with_name(f".exact-{path.name}")
        onnx.save(model, str(file))
    try:
        return open_session(file)
    finally:
        if exact:
            file.unlink()
