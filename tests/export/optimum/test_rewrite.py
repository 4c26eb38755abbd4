"""A float graph becomes one of quantised operators that computes the same."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from edgekit import contract
from edgekit.quant import PRECISIONS, Precision, QuantSpec
from export.graph.ops import WeightFile
from export.optimum import rewrite, sites
from export.optimum.sites import GraphFile, Site
from tests.export.exports import error_of, session
from tests.export.optimum import graphs_by_hand
from tests.export.optimum.graphs_by_hand import INNER, VOCAB, WIDTH

IDS = np.asarray([[3, 0, 39, 17, 3]])


class Made(NamedTuple):
    """A rewritten graph and how it came about."""

    folder: Path
    model: onnx.ModelProto
    found: list[Site]
    written: list[int]


def make(folder: Path, precision: Precision, source: Path | None = None) -> Made:
    graph = GraphFile(graphs_by_hand.save(folder / "float.onnx") if source is None else source)
    found = sites.find(graph, precision, 32)
    written: list[int] = []
    data = WeightFile(folder / contract.DATA_FILE)
    model = rewrite.rewrite(graph, found, data, written.append)
    data.close()
    onnx.save(model, str(folder / contract.MODEL_FILE))
    return Made(folder, model, found, written)


def logits(path: Path, **more: object) -> NDArray[np.float32]:
    found: NDArray[np.float32] = session(path).run(["logits"], {"input_ids": IDS} | more)[0]
    return found


def test_sites_are_the_products_and_the_lookup_by_token_ids(tmp_path: Path) -> None:
    found = sites.find(GraphFile(graphs_by_hand.save(tmp_path / "float.onnx")), "int4", 32)
    assert [(site.name, site.kind, site.rows, site.columns, site.spec) for site in found] == [
        ("model.embed", "table", VOCAB, WIDTH, QuantSpec(8, 32)),
        ("model.layers.0.up", "product", INNER, WIDTH, QuantSpec(4, 32)),
        ("model.layers.0.down", "product", WIDTH, INNER, QuantSpec(4, 32)),
        ("lm_head", "product", VOCAB, WIDTH, QuantSpec(8, 32)),
    ]


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-6), ("int8", 0.02), ("int4", 0.2)])
def test_the_rewritten_graph_computes_what_the_float_graph_does(
    precision: Precision, error: float, external: bool, tmp_path: Path
) -> None:
    source = graphs_by_hand.save(tmp_path / "float.onnx", external=external)
    made = make(tmp_path, precision, source)
    expected = logits(source)
    found = logits(made.folder / contract.MODEL_FILE)
    assert error_of(found, expected) <= error
    assert sum(made.written) == sum(site.bytes for site in made.found)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("keep", [0, 1, 3, 5, 9])
def test_logits_are_made_for_as_many_positions_as_are_wanted(keep: int, precision: Precision, tmp_path: Path) -> None:
    path = make(tmp_path, precision).folder / contract.MODEL_FILE
    every = logits(path)
    few = logits(path, logits_to_keep=np.asarray(keep))
    np.testing.assert_allclose(few, every[:, -keep:] if keep else every, rtol=1e-5, atol=1e-5)
    assert few.shape[1] == (min(keep, 5) or 5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_head_that_is_the_embedding_transposed_shares_its_bytes(precision: Precision, tmp_path: Path) -> None:
    places = {
        tensor.name: next(entry.value for entry in tensor.external_data if entry.key == "offset")
        for tensor in make(tmp_path, precision).model.graph.initializer
        if tensor.external_data
    }
    assert places["model.embed.weight"] == places["lm_head.weight"]
    assert places["model.embed.weight"] != places["model.layers.0.up.weight"]


def test_what_nobody_reads_any_more_is_gone(tmp_path: Path) -> None:
    graph = make(tmp_path, "int4").model.graph
    assert "Identity" not in {node.op_type for node in graph.node}
    assert not {"embed", "up", "down", "head"} & {tensor.name for tensor in graph.initializer}
    names = [tensor.name for tensor in graph.initializer]
    assert len(names) == len(set(names))


def test_large_tensors_are_in_the_data_file_and_indices_in_the_graph(tmp_path: Path) -> None:
    for tensor in make(tmp_path, "int8").model.graph.initializer:
        size = int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.data_type == onnx.TensorProto.INT64:
            assert not tensor.external_data
        if size >= 1024:
            assert tensor.external_data


def variant(*changes: tuple[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes with some replaced, by name."""
    replaced = dict(changes)
    return [replaced.get(node.name, node) for node in graphs_by_hand.nodes()]


UP, DOWN = "/model/layers.0/up/MatMul", "/model/layers.0/down/Gemm"
HEAD, EMBED = "/lm_head/MatMul", "/model/embed/Gather"


def test_a_scaled_gemm_is_left_as_it_is(tmp_path: Path) -> None:
    scaled = helper.make_node("Gemm", ["rows", "down", "down_bias"], ["out"], name=DOWN, transB=1, alpha=0.5)
    source = graphs_by_hand.save(tmp_path / "float.onnx", made=variant((DOWN, scaled)))
    made = make(tmp_path, "int8", source)
    assert "model.layers.0.down" not in {site.name for site in made.found}
    assert error_of(logits(made.folder / contract.MODEL_FILE), logits(source)) <= 0.02


def test_a_table_that_is_not_looked_up_by_ids_stays_float(tmp_path: Path) -> None:
    constants = graphs_by_hand.values() | {"places": np.arange(5)}
    made_by_hand = variant((EMBED, helper.make_node("Gather", ["embed", "places"], ["row"], name=EMBED)))
    made_by_hand.insert(2, helper.make_node("Gather", ["embed", "input_ids"], ["ids_x"], name="/model/tokens/Gather"))
    made_by_hand.insert(3, helper.make_node("Add", ["ids_x", "row"], ["x"], name="/model/Add"))
    source = graphs_by_hand.save(tmp_path / "float.onnx", made=made_by_hand, constants=constants)
    made = make(tmp_path, "int8", source)
    assert [site.name for site in made.found if site.kind == "table"] == ["model.tokens"]
    assert error_of(logits(made.folder / contract.MODEL_FILE), logits(source)) <= 0.02


def test_a_width_that_no_block_divides_keeps_the_table_float(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    constants = {
        "embed": random.normal(size=(VOCAB, 20)).astype(np.float32),
        "head": random.normal(size=(20, VOCAB)).astype(np.float32),
    }
    made_by_hand = [
        helper.make_node("Gather", ["embed", "input_ids"], ["x"], name="/embed/Gather"),
        helper.make_node("MatMul", ["x", "head"], ["logits"], name="/head/MatMul"),
    ]
    source = graphs_by_hand.save(tmp_path / "float.onnx", made=made_by_hand, constants=constants)
    made = make(tmp_path, "int4", source)
    assert [site.spec.name for site in made.found] == ["fp32", "int8-b32"]
    assert error_of(logits(made.folder / contract.MODEL_FILE), logits(source)) <= 0.02


def test_a_head_behind_a_reshape_keeps_all_its_logits(tmp_path: Path) -> None:
    """Cutting its input would cut something else than positions."""
    made_by_hand = [
        *graphs_by_hand.nodes()[:-2],
        helper.make_node("MatMul", ["out", "head"], ["raw"], name=HEAD),
        helper.make_node("Reshape", ["raw", "shape"], ["logits"], name="/logits"),
    ]
    constants = graphs_by_hand.values() | {"shape": np.asarray([1, -1, VOCAB])}
    source = graphs_by_hand.save(tmp_path / "float.onnx", made=made_by_hand, constants=constants)
    made = make(tmp_path, "fp32", source)
    assert contract.LOGITS_TO_KEEP not in {value.name for value in made.model.graph.input}
    assert error_of(logits(made.folder / contract.MODEL_FILE), logits(source)) <= 1e-6


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    made_by_hand = variant(
        (UP, helper.make_node("MatMul", ["scaled", "up_again"], ["inner"], name="/lm_head/MatMul_1"))
    )
    source = graphs_by_hand.save(tmp_path / "float.onnx", made=made_by_hand)
    made = make(tmp_path, "int8", source)
    assert [site.name for site in made.found] == ["model.embed", "lm_head", "model.layers.0.down", "lm_head.2"]
    assert error_of(logits(made.folder / contract.MODEL_FILE), logits(source)) <= 0.02


def test_constants_that_only_a_subgraph_reads_are_kept(tmp_path: Path) -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["raw", "two"], [name])], name, [], [out])

    chosen = helper.make_node(
        "If", ["yes"], ["logits"], name="/if", then_branch=branch("a", "Mul"), else_branch=branch("b", "Add")
    )
    source = graphs_by_hand.save(
        tmp_path / "float.onnx",
        made=[*graphs_by_hand.nodes()[:-1], chosen],
        constants=graphs_by_hand.values() | {"yes": np.asarray(True)},
    )
    made = make(tmp_path, "fp32", source)
    assert error_of(logits(made.folder / contract.MODEL_FILE), logits(source)) <= 1e-6
