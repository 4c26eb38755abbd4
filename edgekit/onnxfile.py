"""Where an ONNX file keeps its weights, read without the onnx package.

A graph may name any path as its external data, so before a bundle is opened each location is held
against the bundle's list of files. This walks the protobuf wire format (protobuf.dev, "Encoding") down
to every TensorProto, wherever one may stand: initializers, sparse initializers, attributes,
subgraphs and functions. Field numbers are those of onnx.proto3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAX_GRAPH_BYTES = 1 << 30
_MAX_DEPTH = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# message -> {field number: message of that field}; fields that lead to no tensor are skipped.
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose bytes are `length` bytes at `offset` of the file `location` (None: to its end).

    `kind` is its type as a number of onnx.proto3's TensorProto.DataType, `shape` what the graph says of it.
    """

    name: str
    location: str
    offset: int
    length: int | None
    kind: int = 0
    shape: tuple[int, ...] = ()


def external_tensors(graph: bytes) -> list[ExternalTensor]:
    """Every tensor of an ONNX file that lives in another file. Raises ValueError for a damaged file."""
    return list(_walk(memoryview(graph), "model", 0))


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[ExternalTensor]:
    if depth > _MAX_DEPTH:
        raise ValueError("the graph is nested too deep")
    if kind == "tensor":
        yield from _external(message)
        return
    children = _CHILDREN[kind]
    for number, value in _fields(message):
        if number in children and isinstance(value, memoryview):
            yield from _walk(value, children[number], depth + 1)


def _external(tensor: memoryview) -> Iterator[ExternalTensor]:
    name, kind, place, external = "", 0, {}, False
    shape: list[int] = []
    for number, value in _fields(tensor):
        if number == 1:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 13 and isinstance(value, memoryview):
            entry = {n: bytes(v).decode() for n, v in _fields(value) if isinstance(v, memoryview)}
            place[entry.get(1, "")] = entry.get(2, "")
        elif number == 14:
            external = external or value == 1
    if external or place:
        yield _placed(name, place, kind, tuple(shape))


def _placed(name: str, place: Mapping[str, str], kind: int, shape: tuple[int, ...]) -> ExternalTensor:
    length = place.get("length")
    offset = int(place.get("offset") or 0)
    return ExternalTensor(name, place.get("location", ""), offset, None if length is None else int(length), kind, shape)


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value): an integer for a varint, the bytes for a length-delimited field."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise ValueError("a field is longer than its message")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
    if at != len(message):
        raise ValueError("the file ends inside a field")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("the file ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than ten bytes")
