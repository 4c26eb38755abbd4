"""The decoder's twin for reading prompts: the same blocks over INT8 rows, and no logits.

It is drawn from a finished decoder's graph, whose tensors it either names again (embedding, norms, biases, tables) or
replaces (a matrix becomes its twin, see edgekit.twin.layout). Only keys and values leave it: whoever reads a prompt
with it reads the last token with the decoder, which makes the logits. So the last layer ends with its attention, and
there is no LM head.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.twin.layout import CODES, ROW_SCALES, after
from export.graph import decoder
from export.graph.attention import shared
from export.graph.blocks import Int8Rows, Linear, Matrix, Norm
from export.graph.ops import NOTHING, Graph, Unwritten, Value
from export.quantize import cache
from export.quantize.plan import Plan


def possible(plan: Plan) -> bool:
    """Whether a model has a twin: every matrix of its layers is stored in blocks."""
    return all(matrix.spec.bits != 32 for name, matrix in plan.items() if name.startswith("layers."))


def save(folder: Path, target: Path, arch: ModelArch, plan: Plan) -> None:
    """Write the twin of the decoder in `folder`; `arch` may have fewer layers."""
    model = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False)
    onnx.save(build(arch, plan, model), str(target))


def build(arch: ModelArch, plan: Plan, model: onnx.ModelProto) -> onnx.ModelProto:
    """The twin of the decoder `model`, or its first layers if `arch` has fewer."""
    data = Unwritten(contract.PREFILL_DATA)
    g = Graph("prefill", data)
    stored = _Derived(g, data, plan, {tensor.name: tensor for tensor in model.graph.initializer})
    ids = g.input(contract.INPUT_IDS, TensorProto.INT64, ("batch", "sequence"))
    mask = g.input(contract.ATTENTION_MASK, TensorProto.INT64, ("batch", "total"))
    common = shared(g, arch, ids, mask)
    places = stored.same("positions.weight") if arch.learned_positions else NOTHING
    stream = decoder.begin(g, ids, stored.table(), places, stored, arch)
    for i in range(arch.layers):
        stream = decoder.layer(g, i, stream, stored, arch, common)
    twin = g.model()
    _prune(twin.graph)
    end = 0
    for tensor in twin.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            end = data.place(tensor, after(end))
    return twin


def _prune(graph: onnx.GraphProto) -> None:
    """Keep what leads to an output: of the last layer, nothing behind its keys and values is read."""
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(tensors)


class _Derived:
    """`Stored` as what a device derives from a decoder's tensors."""

    def __init__(self, g: Graph, data: Unwritten, plan: Plan, tensors: Mapping[str, TensorProto]) -> None:
        self._graph, self._data, self._plan, self._tensors = g, data, plan, tensors

    def same(self, name: str) -> Value:
        """A tensor of the decoder, as it is."""
        tensor = self._tensors[name]
        return self._graph.initializer(self._data.declare(name, tensor.data_type, tensor.dims))

    def table(self) -> Linear:
        """The embedding, read as stored."""
        planned = self._plan["embed"]
        names = ["embed.weight"] if planned.spec.bits == 32 else ["embed.weight", "embed.scales"]
        return Linear("embed", planned.spec, planned.rows, planned.columns, tuple(map(self.same, names)))

    def matrix(self, name: str) -> Matrix:
        """As `decoder.Stored`."""
        planned, g, declare = self._plan[name], self._graph, self._data.declare
        shape = (planned.columns, planned.rows)
        codes = g.initializer(declare(f"{name}{CODES}", TensorProto.INT8, shape))
        scales = g.initializer(declare(f"{name}{ROW_SCALES}", TensorProto.FLOAT, (planned.rows,)))
        return Int8Rows(name, codes, scales, self._same_or_nothing(f"{name}.bias"))

    def norm(self, name: str) -> Norm:
        """As `decoder.Stored`."""
        return Norm(self.same(f"{name}.weight"), self._same_or_nothing(f"{name}.bias"))

    def has(self, name: str) -> bool:
        """As `decoder.Stored`."""
        return name in self._plan

    def cache_scales(self, at: str) -> tuple[Value, ...]:
        """As `decoder.Stored`."""
        return tuple(self.same(name) for name in cache.names(at) if name in self._tensors)

    def _same_or_nothing(self, name: str) -> Value:
        return self.same(name) if name in self._tensors else NOTHING
