"""Writing an ONNX graph: nodes into a protobuf, weight bytes straight into the external data file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NewType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Value = NewType("Value", str)
"""The name of a tensor inside the graph; `NOTHING` leaves out an optional input or output."""

NOTHING = Value("")
MICROSOFT = "com.microsoft"
OPSET = 21
IR_VERSION = 10
_ALIGN_BYTES = 64
"""Weights start on a cache line; onnxruntime maps the file whatever the offset."""

Attribute = int | float | str | Sequence[int]
Array = npt.NDArray[np.generic]


class WeightFile:
    """Appends tensors to one external data file (ONNX "External Data": location, offset, length)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO = path.open("wb")

    def append(self, name: str, array: Array, shape: Sequence[int] | None = None) -> TensorProto:
        """Write `array` and return the initializer that points at its bytes, with `shape` if that differs."""
        self._stream.write(b"\0" * (-self._stream.tell() % _ALIGN_BYTES))
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.dims.extend(array.shape if shape is None else shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self.path.name, "offset": str(self._stream.tell()), "length": str(array.nbytes)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        # Not tofile: its OSError does not say that the disk is full.
        self._stream.write(np.ascontiguousarray(array).data)
        return tensor

    def close(self) -> None:
        """Flush and close."""
        self._stream.close()


class Unwritten:
    """Describes tensors of an external data file that somebody else will write."""

    def __init__(self, location: str) -> None:
        self._location = location

    def append(self, name: str, array: Array) -> TensorProto:
        """The initializer for an array of this type and shape."""
        return self.declare(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def declare(self, name: str, kind: int, shape: Sequence[int]) -> TensorProto:
        """The initializer for a tensor of this TensorProto.DataType and shape."""
        return TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)

    def place(self, tensor: TensorProto, offset: int) -> int:
        """Say that a declared tensor begins at `offset`; returns where it ends."""
        items = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        length: int = math.prod(tensor.dims) * items
        for key, value in {"location": self._location, "offset": str(offset), "length": str(length)}.items():
            tensor.external_data.add(key=key, value=value)
        return offset + length


class Inline:
    """Keeps tensors inside the protobuf: for small graphs that are run at once and never saved."""

    def append(self, name: str, array: Array) -> TensorProto:
        """The initializer with its values."""
        return numpy_helper.from_array(array, name)


class Graph:
    """A graph under construction. Every method that makes something returns its Value."""

    def __init__(self, name: str, weights: WeightFile | Inline | Unwritten) -> None:
        self._proto = onnx.GraphProto(name=name)
        self._weights = weights
        self._constants: dict[str, Value] = {}
        self._taken: set[str] = set()

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """Declare an input."""
        self._proto.input.append(helper.make_tensor_value_info(name, dtype, shape))
        return Value(name)

    def output(self, value: Value, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare that `value` is an output."""
        self._proto.output.append(helper.make_tensor_value_info(value, dtype, shape))

    def weight(self, name: str, array: Array) -> Value:
        """Store an array in the external data file."""
        self._proto.initializer.append(self._weights.append(name, array))
        return Value(name)

    def initializer(self, tensor: TensorProto) -> Value:
        """Declare a tensor whose bytes are someone else's business."""
        self._proto.initializer.append(tensor)
        return Value(tensor.name)

    def alias(self, name: str, of: Value, shape: Sequence[int]) -> Value:
        """The same stored bytes with another shape: two operators share one weight on disk and in the page cache."""
        original = next(tensor for tensor in self._proto.initializer if tensor.name == of)
        tensor = TensorProto()
        tensor.CopyFrom(original)
        tensor.name = name
        del tensor.dims[:]
        tensor.dims.extend(shape)
        self._proto.initializer.append(tensor)
        return Value(name)

    def constant(self, value: float | Sequence[float], dtype: npt.DTypeLike) -> Value:
        """A small constant inside the protobuf, made once however often it is asked for."""
        array = np.asarray(value, dtype)
        key = f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{'_'.join(map(str, array.ravel()))}"
        if key not in self._constants:
            self._constants[key] = self.named_constant(key, array)
        return self._constants[key]

    def named_constant(self, name: str, array: Array) -> Value:
        """A small constant with a name of its own; if an input has that name too, this is its default."""
        self._proto.initializer.append(numpy_helper.from_array(array, name))
        return Value(name)

    def op(
        self,
        kind: str,
        inputs: Sequence[Value],
        name: str,
        *,
        domain: str = "",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Value:
        """Add an operator with one output; `name` names both."""
        return self.ops(kind, inputs, (Value(name),), domain=domain, attributes=attributes)[0]

    def operand_of(self, weight: str) -> Value:
        """What the one operator whose second input is `weight` takes as its first."""
        return next(Value(node.input[0]) for node in self._proto.node if list(node.input[1:2]) == [weight])

    def has(self, name: str) -> bool:
        """Whether an operator writes `name`."""
        return name in self._taken

    def ops(
        self,
        kind: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        *,
        domain: str = "",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Sequence[Value]:
        """Add an operator with the outputs named; returns them."""
        taken = self._taken.intersection(filter(None, outputs))
        if taken:
            raise ValueError(f"two operators write {taken}")
        self._taken.update(filter(None, outputs))
        given = list(inputs)
        while given and given[-1] == NOTHING:
            given.pop()
        node = helper.make_node(kind, given, list(outputs), name=f"{outputs[0]}/{kind}", domain=domain)
        for key, value in (attributes or {}).items():
            node.attribute.append(helper.make_attribute(key, value))
        self._proto.node.append(node)
        return outputs

    def model(self) -> onnx.ModelProto:
        """The finished model; its weights are in the data file beside it."""
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(self._proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgekit")
