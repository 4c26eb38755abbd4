"""External weights are found wherever a graph can hide them; the onnx package is the judge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from edgekit.onnxfile import ExternalTensor, external_tensors


def tensor(location: str = "weights", *, offset: str | None = None, length: str | None = None) -> TensorProto:
    """A tensor kept in another file."""
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            made.external_data.add(key=key, value=value)
    return made


def node(attribute: AttributeProto) -> NodeProto:
    return NodeProto(op_type="X", input=["a"], output=["b"], attribute=[attribute])


def model(graph: GraphProto) -> ModelProto:
    return ModelProto(ir_version=10, producer_name="test", graph=graph)


T, G, S = AttributeProto.TENSOR, AttributeProto.GRAPH, AttributeProto.SPARSE_TENSOR
INITIALIZER = GraphProto(name="g", initializer=[tensor()])
SPARSE = SparseTensorProto(values=tensor(), indices=TensorProto(dims=[1]), dims=[4])
HIDING_PLACES = {
    "initializer": model(INITIALIZER),
    "sparse initializer": model(GraphProto(sparse_initializer=[SPARSE])),
    "sparse indices": model(GraphProto(sparse_initializer=[SparseTensorProto(indices=tensor())])),
    "attribute": model(GraphProto(node=[node(AttributeProto(name="value", type=T, t=tensor()))])),
    "list of tensors": model(GraphProto(node=[node(AttributeProto(name="v", tensors=[TensorProto(), tensor()]))])),
    "subgraph": model(GraphProto(node=[node(AttributeProto(name="then", type=G, g=INITIALIZER))])),
    "list of subgraphs": model(GraphProto(node=[node(AttributeProto(name="b", graphs=[GraphProto(), INITIALIZER]))])),
    "sparse attribute": model(GraphProto(node=[node(AttributeProto(name="v", type=S, sparse_tensor=SPARSE))])),
    "list of sparse": model(GraphProto(node=[node(AttributeProto(name="v", sparse_tensors=[SPARSE]))])),
    "function": ModelProto(functions=[FunctionProto(name="f", node=[node(AttributeProto(name="v", t=tensor()))])]),
    "function default": ModelProto(functions=[FunctionProto(attribute_proto=[AttributeProto(name="v", t=tensor())])]),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_external_weights_are_found_in_every_place(place: str) -> None:
    found = external_tensors(HIDING_PLACES[place].SerializeToString())
    assert found == [ExternalTensor("w", "weights", 0, None, TensorProto.FLOAT, (2,))]


def test_offset_and_length_are_read() -> None:
    graph = GraphProto(initializer=[tensor("deep/file", offset="4096", length="8")])
    assert external_tensors(model(graph).SerializeToString()) == [
        ExternalTensor("w", "deep/file", 4096, 8, TensorProto.FLOAT, (2,))
    ]


def test_a_location_counts_even_if_the_tensor_claims_to_be_inside() -> None:
    claimed = tensor()
    claimed.data_location = TensorProto.DEFAULT
    assert external_tensors(model(GraphProto(initializer=[claimed])).SerializeToString())


def test_weights_inside_the_graph_are_no_matter() -> None:
    graph = GraphProto(initializer=[TensorProto(name="w", data_type=1, dims=[2], raw_data=b"12345678")])
    assert external_tensors(model(graph).SerializeToString()) == []


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field of up to 16,383 bytes."""
    return bytes([number << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value


def test_a_graph_nested_deeper_than_protobuf_reads_is_refused() -> None:
    graph = INITIALIZER.SerializeToString()
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))  # graph -> node -> attribute -> graph
    with pytest.raises(ValueError, match="too deep"):
        external_tensors(field(7, graph))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x3a\x05ab", id="field longer than the file"),
        pytest.param(b"\x3a", id="no length"),
        pytest.param(b"\x08" + b"\xff" * 11, id="endless number"),
        pytest.param(b"\x0b", id="group"),
        pytest.param(b"\x09\x00", id="cut fixed64"),
        pytest.param(model(GraphProto(initializer=[tensor(offset="x")])).SerializeToString(), id="offset in words"),
    ],
)
def test_a_damaged_file_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        external_tensors(raw)


@given(st.sampled_from(sorted(HIDING_PLACES)), st.data())
def test_no_damage_escapes_as_another_error(place: str, data: st.DataObject) -> None:
    raw = bytearray(HIDING_PLACES[place].SerializeToString())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        external_tensors(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except ValueError:
        return


@given(st.binary(max_size=200))
def test_no_bytes_escape_as_another_error(raw: bytes) -> None:
    try:
        external_tensors(raw)
    except ValueError:
        return
