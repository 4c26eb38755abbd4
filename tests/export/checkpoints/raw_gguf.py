"""GGUF headers byte by byte, so that tests can write what no honest writer would."""

import struct
from collections.abc import Sequence

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
Q4_1, TYPE_F32 = 3, 0


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def u32(key: str, value: int) -> bytes:
    return entry(key, U32, struct.pack("<I", value))


def f32(key: str, value: float) -> bytes:
    return entry(key, F32, struct.pack("<f", value))


def string(key: str, value: str | bytes) -> bytes:
    return entry(key, STRING, text(value))


def array(key: str, kind: int, count: int, items: bytes) -> bytes:
    return entry(key, ARRAY, struct.pack("<IQ", kind, count) + items)


def strings(key: str, values: Sequence[str]) -> bytes:
    return array(key, STRING, len(values), b"".join(map(text, values)))


def tensor(name: str, shape: Sequence[int] = (4,), kind: int = TYPE_F32, offset: int = 0) -> bytes:
    """`shape` fastest first, as in the file."""
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def header(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    *,
    data: bytes = b"",
    version: int = 3,
    entry_count: int | None = None,
    tensor_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; the counts can lie."""
    told = (tensor_count, entry_count)
    counts = [len(real) if lie is None else lie for real, lie in zip((tensors, entries), told, strict=True)]
    raw = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    return raw + bytes(-len(raw) % alignment) + data
