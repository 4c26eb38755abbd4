"""The constant matrices of a graph: where they are read, and how each will be stored.

A *site* is a node that multiplies by a constant matrix (MatMul, Gemm), or that looks up rows of the
token embedding (Gather). Everything else stays as the exporter wrote it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit import contract
from edgekit.quant import FLOAT, Precision, QuantSpec

Floats = npt.NDArray[np.float32]

_BITS: Mapping[Precision, int] = {"int4": 4, "int8": 8, "fp32": 32}
_TABLE_BLOCKS = (64, 32, 16)
_SAME_IDS = {"Identity", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Cast"}
"""Operators that leave token ids what they are."""

_POSITION_WISE = {"Identity", "Cast", "Mul", "Div", "Add", "Tanh"}
"""Operators between the LM head and the logits that treat every position by itself: scales, caps and biases."""


@dataclass(frozen=True)
class Site:
    """A node that reads a constant matrix [rows, columns] (outputs, inputs; or tokens, width).

    `node` is the node's index and `operand` which of its inputs is the matrix; `tensor` names the initializer, which
    holds the transpose if `transposed`.
    """

    name: str
    kind: Literal["product", "table"]
    node: int
    operand: int
    tensor: str
    transposed: bool
    rows: int
    columns: int
    spec: QuantSpec

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return self.spec.bytes_for(self.rows, self.columns)


class GraphFile:
    """A model on disk, whose weights are read one at a time."""

    def __init__(self, path: Path) -> None:
        self.model: onnx.ModelProto = onnx.load(str(path), load_external_data=False)
        self._folder = path.parent
        self._initializers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._same = {node.output[0]: node.input[0] for node in self.model.graph.node if node.op_type == "Identity"}

    def constant(self, name: str) -> TensorProto | None:
        """The initializer behind a value, through Identity nodes (by which exporters share equal tensors)."""
        while name in self._same:
            name = self._same[name]
        return self._initializers.get(name)

    def array(self, tensor: TensorProto) -> npt.NDArray[np.generic]:
        """A tensor's values."""
        copy = TensorProto()
        copy.CopyFrom(tensor)  # onnx would keep what it reads in the tensor, and so the whole model in memory
        values: npt.NDArray[np.generic] = numpy_helper.to_array(copy, base_dir=str(self._folder))
        return values

    def named(self, name: str) -> npt.NDArray[np.generic]:
        """The values of the initializer `name`."""
        return self.array(self._initializers[name])

    def matrix(self, site: Site) -> Floats:
        """A site's matrix [rows, columns]."""
        values = self.named(site.tensor).astype(np.float32, copy=False)
        return np.ascontiguousarray(values.T if site.transposed else values)

    @property
    def weights(self) -> int:
        """How many floats the initializers hold: the model's parameters."""
        floats = (t for t in self.model.graph.initializer if t.data_type == TensorProto.FLOAT)
        return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in floats)


def reads_of(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, also those that only its subgraphs (of an If, say) do."""
    inner = (each for attribute in node.attribute for each in (attribute.g, *attribute.graphs))
    return set(node.input).union(*(reads_of(child) for graph in inner for child in graph.node))


def find(graph: GraphFile, precision: Precision, block_size: int) -> list[Site]:
    """All sites in the order of the nodes, each with the spec that it will be stored by.

    As in fused graphs, the token embedding and the LM head are INT8 in every quantised plan.
    """
    head = head_node(graph.model.graph)
    reads_ids = _values_of_ids(graph.model.graph)
    taken: set[str] = set()
    sites = []
    for index, node in enumerate(graph.model.graph.node):
        if (found := _matrix_of(node, graph, reads_ids)) is None:
            continue
        operand, tensor, transposed = found
        shape = tuple(tensor.dims)
        rows, columns = shape[::-1] if transposed else shape
        kind: Literal["product", "table"] = "table" if node.op_type == "Gather" else "product"
        outer = kind == "table" or index == head
        spec = _outer_spec(columns, precision, block_size) if outer else _spec(precision, block_size)
        if kind == "table" and columns % max(1, spec.block_size):
            spec = FLOAT
        name = _unique(_name(node, index), taken)
        sites.append(Site(name, kind, index, operand, tensor.name, transposed, rows, columns, spec))
    return sites


def head_node(graph: onnx.GraphProto, kinds: Collection[str] = ("MatMul",)) -> int | None:
    """Index of the operator (of these kinds) that makes the logits, if only position-wise ones follow it."""
    producers = {output: index for index, node in enumerate(graph.node) for output in node.output}
    index = producers.get(contract.LOGITS)
    while index is not None and graph.node[index].op_type in _POSITION_WISE:
        made = [producers[name] for name in graph.node[index].input if name in producers]
        made = [at for at in made if graph.node[at].op_type != "Constant"]
        index = made[0] if len(made) == 1 else None
    return index if index is not None and graph.node[index].op_type in kinds else None


def _matrix_of(node: onnx.NodeProto, graph: GraphFile, reads_ids: set[str]) -> tuple[int, TensorProto, bool] | None:
    """Which input of a node is a constant float matrix, the initializer, and whether it is the transpose."""
    operand, transposed = 1, True
    if node.op_type == "Gemm":
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if attributes.get("transA") or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            return None
        transposed = not attributes.get("transB")
    elif node.op_type == "Gather":
        if node.input[1] not in reads_ids:
            return None
        operand, transposed = 0, False
    elif node.op_type != "MatMul":
        return None
    tensor = graph.constant(node.input[operand])
    if tensor is None or len(tensor.dims) != 2 or tensor.data_type != TensorProto.FLOAT:
        return None
    return operand, tensor, transposed


def _values_of_ids(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that are token ids, in whatever shape."""
    found = {contract.INPUT_IDS}
    for node in graph.node:  # in the order of computation
        if node.op_type in _SAME_IDS and node.input[0] in found:
            found.update(node.output)
    return found


def _spec(precision: Precision, block_size: int) -> QuantSpec:
    return FLOAT if precision == "fp32" else QuantSpec(_BITS[precision], block_size)


def _outer_spec(columns: int, precision: Precision, block_size: int) -> QuantSpec:
    if precision == "fp32":
        return FLOAT
    return QuantSpec(8, next((size for size in _TABLE_BLOCKS if columns % size == 0), block_size))


def _name(node: onnx.NodeProto, index: int) -> str:
    """`/model/decoder/layers.0/fc1/Gemm` -> `model.decoder.layers.0.fc1`: the module's path, as its author wrote it."""
    path = [part for part in node.name.split("/") if part]
    if len(path) > 1 and re.fullmatch(r"(MatMul|Gemm|Gather)(_\d+)?", path[-1]):
        path.pop()
    return re.sub(r"[^A-Za-z0-9._-]", "_", ".".join(path)) or f"matrix.{index}"


def _unique(name: str, taken: set[str]) -> str:
    tried = next(each for each in _numbered(name) if each not in taken)
    taken.add(tried)
    return tried


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1
