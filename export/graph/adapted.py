"""A finished decoder with a LoRA branch beside every linear of its layers: what it computes, plus x A B.

A and B are inputs with a default of rank 0, so that without an adapter the graph computes what the decoder does. It
reads the decoder's data file, and is a file of its own because idle branches are not free: a small model is bound by
its number of operators. SmolLM2-135M (INT4, 681 operators, 360 more here) on two cores of Zen 3, in turn:

    graph                          ms a token   prompt of 32
    the decoder                    7.0 to 7.2        1.00
    with branches, no adapter      7.8 (+9 %)        1.05
    with branches, rank 8          8.7 (+23 %)       1.10

(An operator costs some 2 us whatever it does; a model of 3 B parameters, with a hundred times that a layer, does not
notice.) A device opens this graph at the first request for an adapter, in place of the other one: each would pack the
weights into a copy of its own, 145 MB of memory for SmolLM2 and 2 GB for Phi-2.

Three operators a linear are the fewest: Q|K|V and gate|up have one A, as wide as the ranks of their parts together,
and a B that is block-diagonal. Gemm would add in one operator with the second product, but takes no batches; `If`
around a branch costs as much as the branch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit import contract
from edgekit.adapter import linear_parts, linears
from edgekit.arch import ModelArch
from export.quantize.plan import parts_apart

_BEFORE = ".before_lora"


def save(folder: Path, arch: ModelArch) -> None:
    """Write the graph beside the decoder in `folder`, which must not be rotated.

    A rotation folds the gains of norms into the matrices behind them, so an adapter's A would have to be folded with
    gains that the bundle no longer has.
    """
    model = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False)
    onnx.save(adapted(model, arch), str(folder / contract.ADAPTERS_FILE))


def adapted(model: onnx.ModelProto, arch: ModelArch) -> onnx.ModelProto:
    """The decoder `model` with its branches; `model` itself is changed.

    Every linear must be one product, or one for each of its parts. Afterwards their names are of the sums, and nothing
    else in the graph has changed.
    """
    graph = model.graph
    products = {name: node for node in graph.node for name in node.output}
    behind: dict[str, list[onnx.NodeProto]] = {}  # by the last product that a branch is added to
    for linear, (inputs, outputs) in linears(arch).items():
        branch = _Branch(linear, inputs, outputs, tuple(_products(linear, products)))
        branch.declare(graph, arch)
        behind[branch.products[-1].output[0]] = branch.nodes(_operand(branch.products[0], products))
        for product in branch.products:
            product.output[0] += _BEFORE
    ordered = [each for node in graph.node for each in (node, *behind.get(node.output[0].removesuffix(_BEFORE), ()))]
    del graph.node[:]
    graph.node.extend(ordered)
    return model


def _products(linear: str, products: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The operators that write a linear's output, the bias included."""
    whole = f"{linear}.out" in products
    for part in [linear] if whole else parts_apart(linear):
        yield products.get(f"{part}.biased") or products[f"{part}.out"]


@dataclass(frozen=True)
class _Branch:
    linear: str
    inputs: int
    outputs: int
    products: tuple[onnx.NodeProto, ...]

    def declare(self, graph: onnx.GraphProto, arch: ModelArch) -> None:
        """The two inputs and their defaults, and how wide the parts are of a linear that is stored apart."""
        a, b = contract.lora_names(self.linear)
        rank = f"{self.linear}.rank"
        for name, shape, empty in (
            (a, (self.inputs, rank), (self.inputs, 0)),
            (b, (rank, self.outputs), (0, self.outputs)),
        ):
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            graph.initializer.append(numpy_helper.from_array(np.zeros(empty, np.float32), name))
        if len(self.products) > 1:
            widths = np.asarray([linear_parts(arch, self.linear)[part][1] for part in parts_apart(self.linear)])
            graph.initializer.append(numpy_helper.from_array(widths.astype(np.int64), f"{self.linear}.widths"))

    def nodes(self, operand: str) -> list[onnx.NodeProto]:
        """Operators that add x A B, to be placed behind the last product; `operand` is x."""
        a, b = contract.lora_names(self.linear)
        low, update = f"{self.linear}.low_rank", f"{self.linear}.update"
        names = [product.output[0] for product in self.products]
        made = [_node("MatMul", [operand, a], [low]), _node("MatMul", [low, b], [update])]
        updates = [update]
        if len(names) > 1:
            updates = [f"{name}.update" for name in names]
            made.append(_node("Split", [update, f"{self.linear}.widths"], updates))
            made[-1].attribute.append(helper.make_attribute("axis", -1))
        made += [_node("Add", [name + _BEFORE, each], [name]) for name, each in zip(names, updates, strict=True)]
        return made


def _operand(product: onnx.NodeProto, products: dict[str, onnx.NodeProto]) -> str:
    """What a linear multiplies: neither the product that its bias is added to, nor x with block means appended."""
    if product.op_type == "Add":
        product = products[product.input[0]]
    x: str = product.input[0]
    return str(products[x].input[0]) if x == product.output[0].removesuffix(".out") + ".in" else x


def _node(kind: str, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}/lora/{kind}")
