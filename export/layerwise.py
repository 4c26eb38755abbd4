"""Running a float checkpoint layer by layer on onnxruntime, with the product's own graph.

One layer is a graph whose weights are inputs, so one session serves all layers of a kind and the model is never
in memory: calibration, sensitivity and reference logits all stream through here, for every family alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgekit import contract
from edgekit.arch import ModelArch, Positions
from edgekit.quant import FLOAT
from export import reference
from export.families.weights import Weights
from export.graph import decoder
from export.graph.attention import shared
from export.graph.blocks import Linear, Norm
from export.graph.ops import NOTHING, Graph, Inline, Value
from export.matrices import CheckpointMatrices
from export.quantize.plan import matrix_parts
from export.sessions import open_session

Floats = npt.NDArray[np.float32]
_STREAM_IN, _STREAM_OUT = "stream_in", "stream_out"


@dataclass(frozen=True)
class Layer:
    """A layer's float weights: matrices [rows, columns] and vectors by the graph's names without "layers.{i}."."""

    matrices: dict[str, Floats]
    vectors: dict[str, Floats]

    def with_matrix(self, name: str, values: Floats) -> "Layer":
        """The same layer with one matrix replaced."""
        return Layer(self.matrices | {name: values}, self.vectors)


@dataclass(frozen=True)
class Ends:
    """Other values for the embedding ("embed") or the LM head ("lm_head"), [vocab, hidden]."""

    name: str
    values: Floats


class Layerwise:
    """A checkpoint as a float model. Streams are [batch, sequence, hidden]; all rows have the same length."""

    def __init__(self, arch: ModelArch, weights: Weights, ends: Ends | None = None) -> None:
        self._arch, self._weights = arch, weights
        self._sessions: dict[Positions, _LayerSession] = {}
        plain = CheckpointMatrices(arch, weights)
        self._matrices: reference.Matrices = plain if ends is None else _Replaced(plain, ends)
        self._parts = matrix_parts(arch)

    @property
    def layers(self) -> int:
        """How many there are."""
        return self._arch.layers

    def load(self, i: int) -> Layer:
        """The weights of one layer."""
        at = f"layers.{i}."
        parts = {name: parts for name, parts in self._parts.items() if name.startswith(at)}
        matrices = {
            name.removeprefix(at): np.concatenate([self._weights.tensor(part) for part in each])
            for name, each in parts.items()
        }
        vectors = dict(self._vectors(i, parts))
        return Layer(matrices, vectors)

    def embed(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Ids [batch, sequence] -> the stream that enters the first layer."""
        unique, places = np.unique(ids, return_inverse=True)
        rows = self._matrices.lookup([int(token) for token in unique])
        stream = rows[places.reshape(ids.shape)] * np.float32(self._arch.embed_scale)
        if self._arch.learned_positions:
            stream = stream + self._weights.rows("positions.weight", 0, ids.shape[1])
        if self._arch.rotated:
            stream = self._matrices.multiply("rotate_in", stream.reshape(-1, self._arch.hidden)).reshape(stream.shape)
        return stream

    def run(self, i: int, layer: Layer, stream: Floats) -> Floats:
        """The stream after layer `i`."""
        return self._session(i).run(layer, stream, taps=False)[0]

    def run_with_inputs(self, i: int, layer: Layer, stream: Floats) -> tuple[Floats, dict[str, Floats]]:
        """The same, and what each matrix multiplied: [batch, sequence, columns] by name."""
        return self._session(i).run(layer, stream, taps=True)

    def run_with_cache(self, i: int, layer: Layer, stream: Floats) -> tuple[Floats, Floats, Floats]:
        """The same, and the keys and values that attention would cache: [batch, kv_heads, sequence, head_dim]."""
        return self._session(i).run_with_cache(layer, stream)

    def logits(self, stream: Floats) -> Floats:
        """The stream after the last layer, of one row [sequence, hidden] -> logits [sequence, vocab]."""
        return reference.head(self._arch, self._matrices, stream)

    def windows(self, windows: Sequence[Sequence[int]]) -> Iterator[Floats]:
        """Logits [tokens, vocab] of each window, in order; each layer is read once for all of them."""
        streams = [self.embed(np.asarray([window], np.int64)) for window in windows]
        for i in range(self.layers):
            layer = self.load(i)
            streams = [self.run(i, layer, stream) for stream in streams]
        for stream in streams:
            yield self.logits(stream[0])

    def _vectors(self, i: int, parts: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Floats]]:
        at = f"layers.{i}."
        for name, each in parts.items():
            biases = [part.removesuffix("weight") + "bias" for part in each]
            if self._weights.has(biases[0]):
                yield f"{name.removeprefix(at)}.bias", np.concatenate([self._weights.tensor(bias) for bias in biases])
        for name in (*_NORMS, *_HEAD_NORMS):
            for kind in ("weight", "bias"):
                if self._weights.has(f"{at}{name}.{kind}"):
                    yield f"{name}.{kind}", self._weights.tensor(f"{at}{name}.{kind}")

    def _session(self, i: int) -> "_LayerSession":
        positions = self._arch.positions(i)
        if positions not in self._sessions:
            self._sessions[positions] = _LayerSession(self._arch, self._weights, i)
        return self._sessions[positions]


class _Replaced:
    """A checkpoint's matrices, but one."""

    def __init__(self, others: CheckpointMatrices, ends: Ends) -> None:
        self._others, self._ends = others, ends

    def multiply(self, name: str, x: Floats) -> Floats:
        """As `reference.Matrices`."""
        if name != self._ends.name:
            return self._others.multiply(name, x)
        product: Floats = x @ self._ends.values.T
        return product + self.vector("lm_head.bias") if self.has("lm_head.bias") else product

    def lookup(self, ids: Sequence[int]) -> Floats:
        """As `reference.Matrices`."""
        found: Floats = self._ends.values[list(ids)]
        return found if self._ends.name == "embed" else self._others.lookup(ids)

    def vector(self, name: str) -> Floats:
        """As `reference.Matrices`."""
        return self._others.vector(name)

    def has(self, name: str) -> bool:
        """As `reference.Matrices`."""
        return self._others.has(name)


_NORMS = ("attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm")
_HEAD_NORMS = ("q_norm", "k_norm")


class _Fed:
    """`Stored` as inputs of the graph."""

    def __init__(self, g: Graph, arch: ModelArch, weights: Weights) -> None:
        self._graph, self._weights, self._parts = g, weights, matrix_parts(arch)
        self.matrices: list[str] = []

    def matrix(self, name: str) -> Linear:
        shapes = [self._weights.shape(part) for part in self._parts[name]]
        rows, columns = sum(shape[0] for shape in shapes), shapes[0][1]
        self.matrices.append(name)
        weight = self._graph.input(f"{name}.weight", TensorProto.FLOAT, (rows, columns))
        bias = NOTHING
        if self._weights.has(self._parts[name][0].removesuffix("weight") + "bias"):
            bias = self._graph.input(f"{name}.bias", TensorProto.FLOAT, (rows,))
        return Linear(name, FLOAT, rows, columns, (weight,), bias)

    def has(self, name: str) -> bool:
        return name in self._parts

    def cache_scales(self, at: str) -> tuple[Value, ...]:
        return ()  # what is measured is a float cache

    def norm(self, name: str) -> Norm:
        gain, bias = f"{name}.weight", f"{name}.bias"
        shape = self._weights.dims(gain)
        given = self._graph.input(gain, TensorProto.FLOAT, shape)
        return Norm(given, self._graph.input(bias, TensorProto.FLOAT, shape) if self._weights.has(bias) else NOTHING)


class _LayerSession:
    """The graph of one layer, open. `number` is the layer that it was drawn from; its weights' names say so."""

    def __init__(self, arch: ModelArch, weights: Weights, number: int) -> None:
        self._arch, self._at = arch, f"layers.{number}."
        self._cached = [contract.present_name(number, half) for half in contract.HALVES]
        g = Graph("layer", Inline())
        ids = g.input(contract.INPUT_IDS, TensorProto.INT64, ("batch", "sequence"))
        mask = g.input(contract.ATTENTION_MASK, TensorProto.INT64, ("batch", "total"))
        stream = g.input(_STREAM_IN, TensorProto.FLOAT, ("batch", "sequence", arch.hidden))
        common = shared(g, arch, ids, mask)
        stored = _Fed(g, arch, weights)
        left = decoder.settle(
            g, decoder.layer(g, number, decoder.Stream(stream), stored, arch, common), Value(_STREAM_OUT)
        )
        g.output(left.residual, TensorProto.FLOAT, ("batch", "sequence", arch.hidden))
        self._taps = {name.removeprefix(self._at): g.operand_of(f"{name}.weight") for name in stored.matrices}
        for value in dict.fromkeys(self._taps.values()):
            g.output(value, TensorProto.FLOAT, ("batch", "sequence", f"columns of {value}"))
        self._session = open_session(g.model().SerializeToString(), arena=False)
        self._names = [entry.name for entry in self._session.get_inputs()]

    def run(self, layer: Layer, stream: Floats, *, taps: bool) -> tuple[Floats, dict[str, Floats]]:
        wanted = list(self._taps) if taps else []
        # One value may feed two matrices; onnxruntime returns each name once.
        outputs = [_STREAM_OUT, *dict.fromkeys(self._taps[name] for name in wanted)]
        found = dict(zip(outputs, self._fetch(layer, stream, outputs), strict=True))
        return found[_STREAM_OUT], {name: found[self._taps[name]] for name in wanted}

    def run_with_cache(self, layer: Layer, stream: Floats) -> tuple[Floats, Floats, Floats]:
        found, keys, values = self._fetch(layer, stream, [_STREAM_OUT, *self._cached])
        return found, keys, values

    def _fetch(self, layer: Layer, stream: Floats, outputs: Sequence[str]) -> list[Floats]:
        batch, sequence, _ = stream.shape
        empty = np.zeros((batch, self._arch.kv_heads, 0, self._arch.head_dim), np.float32)
        feed: dict[str, npt.NDArray[np.generic]] = {
            contract.INPUT_IDS: np.zeros((batch, sequence), np.int64),
            contract.ATTENTION_MASK: np.ones((batch, sequence), np.int64),
            _STREAM_IN: stream,
        }
        feed |= {f"{self._at}{name}.weight": values for name, values in layer.matrices.items()}
        feed |= {f"{self._at}{name}": values for name, values in layer.vectors.items()}
        feed |= {name: empty for name in self._names if name.startswith("past_key_values.")}
        fetched: list[Floats] = self._session.run(outputs, {name: feed[name] for name in self._names})
        return fetched
