import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.graph.ops import Array, Graph, Value, WeightFile


def test_weights_begin_on_cache_lines_and_read_back(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {"a": np.arange(5, dtype=np.float32), "b": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    data = WeightFile(tmp_path / "w.data")
    places = {name: data.append(name, array) for name, array in arrays.items()}
    data.close()
    raw = (tmp_path / "w.data").read_bytes()
    for name, tensor in places.items():
        place = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(place["offset"]), int(place["length"])
        assert place["location"] == "w.data"
        assert offset % 64 == 0
        assert raw[offset : offset + length] == arrays[name].tobytes()
        assert tuple(tensor.dims) == arrays[name].shape


def test_a_transposed_array_is_written_in_its_own_order(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    data = WeightFile(tmp_path / "w.data")
    data.append("a", array)
    data.close()
    assert (tmp_path / "w.data").read_bytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_told_by_its_error_number() -> None:
    data = WeightFile(Path("/dev/full"))
    with pytest.raises(OSError, match="No space") as caught:
        data.append("a", np.zeros(1 << 20, np.uint8))
    assert caught.value.errno == errno.ENOSPC
    data.close()


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    data = WeightFile(tmp_path / "w.data")
    yield Graph("g", data)
    data.close()


def test_two_operators_cannot_write_one_value(graph: Graph) -> None:
    graph.op("Neg", [Value("x")], "y")
    with pytest.raises(ValueError, match="two operators write"):
        graph.op("Abs", [Value("x")], "y")


def test_a_constant_is_made_once(graph: Graph) -> None:
    assert graph.constant([1, 2], np.int64) == graph.constant([1, 2], np.int64)
    assert graph.constant([1, 2], np.int64) != graph.constant([2, 1], np.int64)
    assert graph.constant(1, np.int64) != graph.constant([1], np.int64)
    assert graph.constant(1, np.int64) != graph.constant(1, np.int32)
    assert [tensor.name for tensor in graph.model().graph.initializer].count("const_int64_2_1_2") == 1


def test_an_alias_shares_the_bytes(graph: Graph) -> None:
    weight = graph.weight("table", np.zeros((4, 2, 16), np.uint8))
    graph.alias("rows", weight, (4, 32))
    tensors = {tensor.name: tensor for tensor in graph.model().graph.initializer}
    assert tensors["rows"].external_data == tensors["table"].external_data
    assert list(tensors["rows"].dims) == [4, 32]
    assert list(tensors["table"].dims) == [4, 2, 16]


def test_the_model_is_valid_onnx(graph: Graph) -> None:
    x = graph.input("x", onnx.TensorProto.FLOAT, ("batch", 3))
    graph.output(graph.op("Neg", [x], "y"), onnx.TensorProto.FLOAT, ("batch", 3))
    onnx.checker.check_model(graph.model(), full_check=True)
