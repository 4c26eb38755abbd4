"""Running a finished graph without ever holding all of it: one run of layers after the other.

The graph is cut at residual streams into segments of bounded weight; each is a graph of its own over
the same data file. A small model is one segment and its session stays open; a large one is opened
segment by segment, so that checking a bundle takes no more memory than making it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx.utils import Extractor

from edgekit import contract
from edgekit.arch import ModelArch
from export.graph import attention
from export.graph.decoder import boundary
from export.sessions import open_session

Floats = npt.NDArray[np.float32]
SEGMENT_BYTES = 240 << 20
"""onnxruntime holds a mapped and a packed copy while it opens a graph: at most twice this at a time."""

_FLOAT_ACTIVATIONS = 1
"""MatMulNBits accuracy_level: compute in float32."""

_SHARED_INPUTS = (contract.INPUT_IDS, contract.ATTENTION_MASK)


Cache = list[npt.NDArray[np.generic]]
"""Keys and values of each layer in turn, [1, kv_heads, tokens, head_dim], of the graph's type."""


Feed = dict[str, npt.NDArray[np.generic]]


class Segments:
    """The decoder in `folder`, run on one sequence with a cache. Use as a context manager.

    `exact` keeps activations and cache in float instead of rounding them to INT8, so that the same bytes can be held
    against a float reference closely.
    """

    def __init__(self, folder: Path, arch: ModelArch, layer_bytes: int, *, exact: bool) -> None:
        self._arch = arch
        self._exact = exact
        self._folder = folder
        per_segment = max(1, SEGMENT_BYTES // max(1, layer_bytes))
        starts = list(range(0, arch.layers, per_segment))
        self._spans = list(zip(starts, [*starts[1:], arch.layers], strict=True))
        self._files: list[Path] = []
        self._kept: onnxruntime.InferenceSession | None = None
        self._cache_type: npt.DTypeLike = np.float32

    def __enter__(self) -> Self:
        """Write the segments' graphs beside the data file."""
        model = onnx.load(str(self._folder / contract.MODEL_FILE), load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model)
        _declare_streams(model, self._arch)
        if self._exact:
            make_exact(model)
        self._cache_type = _cache_type(model)
        extractor = Extractor(model)
        for start, stop in self._spans:
            part = extractor.extract_model(self._inputs(start, stop), self._outputs(start, stop))
            file = self._folder / f".segment-{start}.onnx"
            onnx.save(part, str(file))
            self._files.append(file)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove them."""
        self._kept = None
        for file in self._files:
            file.unlink(missing_ok=True)

    def run(self, sequences: Sequence[Sequence[int]], pasts: Sequence[Cache]) -> tuple[list[Floats], list[Cache]]:
        """Append ids to each sequence, whose cache is the past beside it: logits [tokens, vocab] and new caches.

        All sequences pass a segment before the next one is opened.
        """
        feeds = [_feed(ids, past[0].shape[2] + len(ids)) for ids, past in zip(sequences, pasts, strict=True)]
        presents: list[Cache] = [[] for _ in sequences]
        for span, file in zip(self._spans, self._files, strict=True):
            self._pass(span, file, feeds, pasts, presents)
        return [feed[contract.LOGITS][0].astype(np.float32) for feed in feeds], presents

    def _pass(
        self, span: tuple[int, int], file: Path, feeds: list[Feed], pasts: Sequence[Cache], presents: list[Cache]
    ) -> None:
        """Take all sequences through one segment. A function of its own: its session must be gone before the next."""
        start, stop = span
        cached, outputs = _cache_names(start, stop, contract.past_name), self._outputs(start, stop)
        boundary = len(outputs) - len(cached)
        session = self._session(file)
        names = [entry.name for entry in session.get_inputs()]
        for feed, past, present in zip(feeds, pasts, presents, strict=True):
            given = feed | dict(zip(cached, past[2 * start : 2 * stop], strict=True))
            results = session.run(outputs, {name: given[name] for name in names})
            feed |= dict(zip(outputs[:boundary], results[:boundary], strict=True))
            present.extend(results[boundary:])

    def empty(self) -> Cache:
        """The cache of a sequence with no tokens."""
        shape = (1, self._arch.kv_heads, 0, self._arch.head_dim)
        return [np.zeros(shape, self._cache_type) for _ in range(2 * self._arch.layers)]

    def _session(self, file: Path) -> onnxruntime.InferenceSession:
        if self._kept is not None:
            return self._kept
        session = open_session(file, arena=False)  # an arena would keep what a closed segment took
        if len(self._spans) == 1:
            self._kept = session
        return session

    def _inputs(self, start: int, stop: int) -> list[str]:
        names = [*_SHARED_INPUTS, *_cache_names(start, stop, contract.past_name)]
        return names if start == 0 else [*names, *boundary(self._arch, start)]

    def _outputs(self, start: int, stop: int) -> list[str]:
        last = stop == self._arch.layers
        flowing = [contract.LOGITS] if last else list(boundary(self._arch, stop))
        return [*flowing, *_cache_names(start, stop, contract.present_name)]


def _feed(ids: Sequence[int], total: int) -> Feed:
    return {contract.INPUT_IDS: np.asarray([ids], np.int64), contract.ATTENTION_MASK: np.ones((1, total), np.int64)}


def _cache_names(start: int, stop: int, name: contract.CacheName) -> list[str]:
    return [name(i, half) for i in range(start, stop) for half in contract.HALVES]


def _declare_streams(model: onnx.ModelProto, arch: ModelArch) -> None:
    """The extractor cuts only at values of known type; shape inference does not know onnxruntime's operators."""
    known = {value.name for value in model.graph.value_info}
    for layer in range(1, arch.layers):
        for name in boundary(arch, layer):
            if name not in known:
                shape = ("batch", "sequence", arch.hidden)
                info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                model.graph.value_info.append(info)


def make_exact(model: onnx.ModelProto) -> None:
    """Keep activations and cache in float instead of rounding them to INT8."""
    _keep_activations(model)
    _keep_cache(model)


def _keep_activations(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = _FLOAT_ACTIVATIONS


def _cache_type(model: onnx.ModelProto) -> npt.DTypeLike:
    first = next(value for value in model.graph.input if value.name == contract.past_name(0, "key"))
    return onnx.helper.tensor_dtype_to_np_dtype(first.type.tensor_type.elem_type)


def _keep_cache(model: onnx.ModelProto) -> None:
    """An INT8 cache becomes a float one."""
    for node in model.graph.node:
        if node.op_type == attention.OPERATOR:
            del node.input[attention.SCALE_INPUTS :]
            kept = [each for each in node.attribute if each.name not in attention.QUANTISED]
            del node.attribute[:]
            node.attribute.extend(kept)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT8:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
