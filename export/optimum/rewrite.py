"""A float graph with its constant matrices stored anew: quantised, and streamed to one data file.

    MatMul, Gemm by a constant   -> MatMulNBits (com.microsoft), or FusedMatMul for floats; a Gemm's bias stays its bias
    Gather of token embeddings   -> GatherBlockQuantized, if blocks divide the width
    what makes the logits        -> only for the last `logits_to_keep` positions

Every matrix is stored as [rows, columns] and once: an LM head that is tied to the embedding, which exporters write
out a second time transposed, becomes the same bytes again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit import contract
from edgekit.quant import QuantSpec
from export.graph.ops import MICROSOFT, WeightFile
from export.optimum.sites import Floats, GraphFile, Site, head_node, reads_of
from export.quantize import codec, rtn

_CHUNK_VALUES = 1 << 23
_INLINE_BYTES = 1024
"""Smaller tensors stay in the graph: shapes and indices must, for onnxruntime to see them while it loads."""
_INT8_ACTIVATIONS = 4
_MAX_INT64 = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Stored:
    """Initializers of one matrix on disk: the weights, and their scales if they are quantised."""

    weight: TensorProto
    scales: TensorProto | None


def rewrite(
    graph: GraphFile, sites: Sequence[Site], data: WeightFile, written: Callable[[int], None]
) -> onnx.ModelProto:
    """The new model; its weights are in `data`. `written` is told the bytes of each matrix."""
    store = _Store(graph, data, written)
    replaced = {site.node: _nodes(graph.model.graph.node[site.node], site, store) for site in sites}
    source = graph.model.graph
    made = onnx.GraphProto(name="edgekit")
    made.input.extend(source.input)
    made.output.extend(source.output)
    for index, node in enumerate(source.node):
        made.node.extend(replaced.get(index, [node]))
    made.initializer.extend(store.made)
    _keep_few_logits(made)
    _drop_unused(made)
    add_initializers(made, graph, data)
    opsets = {entry.domain: entry.version for entry in graph.model.opset_import} | {MICROSOFT: 1}
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=graph.model.ir_version,
        producer_name="edgekit",
    )


class _Store:
    """Writes matrices, each content once."""

    def __init__(self, graph: GraphFile, data: WeightFile, written: Callable[[int], None]) -> None:
        self.made: list[TensorProto] = []
        self._graph, self._data, self._written = graph, data, written
        self._by_content: dict[tuple[bytes, QuantSpec], _Stored] = {}

    def matrix(self, site: Site) -> tuple[str, ...]:
        """Store a site's matrix; names of its weights and scales, with the shape that the site's operator wants."""
        values = self._graph.matrix(site)
        key = (hashlib.sha256(values.data).digest(), site.spec)
        if key not in self._by_content:
            self._by_content[key] = self._write(site, values)
        self._written(site.bytes)
        stored = self._by_content[key]
        weight = self._named(stored.weight, f"{site.name}.weight")
        if stored.scales is None:
            return (weight.name,)
        if site.kind == "table":
            del weight.dims[1:]
            weight.dims.append(site.columns * site.spec.bits // 8)
        return weight.name, self._named(stored.scales, f"{site.name}.scales").name

    def _write(self, site: Site, values: Floats) -> _Stored:
        if site.spec.bits == 32:
            return _Stored(self._data.append(site.name, values), None)
        matrix = quantised(values, site.spec)
        return _Stored(
            self._data.append(site.name, matrix.packed), self._data.append(f"{site.name}.scales", matrix.scales)
        )

    def _named(self, tensor: TensorProto, name: str) -> TensorProto:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = name
        self.made.append(copy)
        return copy


def quantised(values: Floats, spec: QuantSpec) -> codec.QuantisedMatrix:
    """Round a matrix [rows, columns], some rows at a time."""
    step = max(1, _CHUNK_VALUES // values.shape[1])
    pieces = [
        codec.store_symmetric(*rtn.quantise(values[start : start + step], spec.bits, spec.block_size), spec)
        for start in range(0, len(values), step)
    ]
    packed, scales = (np.concatenate(each) for each in zip(*((p.packed, p.scales) for p in pieces), strict=True))
    return codec.QuantisedMatrix(spec, values.shape[1], packed, scales)


def _nodes(node: onnx.NodeProto, site: Site, store: _Store) -> list[onnx.NodeProto]:
    """What takes the place of a site's node."""
    output = node.output[0]
    if site.kind == "table":
        if site.spec.bits == 32:
            (table,) = store.matrix(site)
            return [helper.make_node("Gather", [table, node.input[1]], [output], name=node.name, axis=0)]
        return [
            helper.make_node(
                "GatherBlockQuantized",
                [store.matrix(site)[0], node.input[1], f"{site.name}.scales"],
                [output],
                name=node.name,
                domain=MICROSOFT,
                bits=site.spec.bits,
                block_size=site.spec.block_size,
                gather_axis=0,
                quantize_axis=1,
            )
        ]
    bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
    if site.spec.bits == 32:
        return _float_product(node, bias, store.matrix(site)[0])
    inputs = [node.input[0], *store.matrix(site), *(("", "", bias) if bias else ())]
    return [
        helper.make_node(
            "MatMulNBits",
            inputs,
            [output],
            name=node.name,
            domain=MICROSOFT,
            K=site.columns,
            N=site.rows,
            bits=site.spec.bits,
            block_size=site.spec.block_size,
            accuracy_level=_INT8_ACTIVATIONS,
        )
    ]


def _float_product(node: onnx.NodeProto, bias: str, weight: str) -> list[onnx.NodeProto]:
    output = node.output[0]
    product = f"{output}/product" if bias else output
    nodes = [
        helper.make_node("FusedMatMul", [node.input[0], weight], [product], name=node.name, domain=MICROSOFT, transB=1)
    ]
    if bias:
        nodes.append(helper.make_node("Add", [product, bias], [output], name=f"{node.name}/bias"))
    return nodes


def _keep_few_logits(graph: onnx.GraphProto) -> None:
    """Cut the LM head's input to its last `logits_to_keep` positions (0: all), where that can be done."""
    head = head_node(graph, ("MatMulNBits", "FusedMatMul"))
    if head is None:
        return
    states, kept = graph.node[head].input[0], f"{contract.LOGITS_TO_KEEP}/states"
    names = {part: f"{contract.LOGITS_TO_KEEP}/{part}" for part in ("start", "starts", "ends", "axes", "one")}
    cut = [
        helper.make_node("Neg", [contract.LOGITS_TO_KEEP], [names["start"]]),  # -0 is 0: from the first one
        helper.make_node("Reshape", [names["start"], names["one"]], [names["starts"]]),
        helper.make_node("Slice", [states, names["starts"], names["ends"], names["axes"]], [kept]),
    ]
    graph.node[head].input[0] = kept
    for offset, node in enumerate(cut):
        graph.node.insert(head + offset, node)
    constants = {names["ends"]: [_MAX_INT64], names["axes"]: [1], names["one"]: [1]}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
    graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.int64), contract.LOGITS_TO_KEEP))
    graph.input.append(helper.make_tensor_value_info(contract.LOGITS_TO_KEEP, TensorProto.INT64, []))
    for output in graph.output:
        if output.name == contract.LOGITS:
            output.type.tensor_type.shape.dim[1].dim_param = "kept"


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes that nobody reads: the Identity of a matrix that is now stored elsewhere."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(reads_of(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def add_initializers(graph: onnx.GraphProto, source: GraphFile, data: WeightFile) -> None:
    """What is still read and was not stored anew: large ones to the data file."""
    have = {tensor.name for tensor in graph.initializer}
    wanted = {name for node in graph.node for name in reads_of(node)} - have
    for tensor in source.model.graph.initializer:
        if tensor.name not in wanted:
            continue
        array = source.array(tensor)
        large = array.nbytes >= _INLINE_BYTES
        graph.initializer.append(
            data.append(tensor.name, array) if large else numpy_helper.from_array(array, tensor.name)
        )
