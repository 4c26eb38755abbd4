"""Cutting a bundle or an adapter into chunks: small enough to fetch again, the same ones wherever nothing changed.

Weights (external data of ONNX graphs) lie on a grid of 1 MiB that restarts at each tensor of 64 KiB or more, so that a
tensor which did not change has the same chunks wherever it moved, and one that changed a little has chunks of the same
lengths, from which a difference can be counted. What lies between large tensors is gathered into chunks of at most
256 KiB that begin where a tensor begins.

Other files (tokenizers, graphs, texts) are cut where their content says so: at places where a rolling hash of the last
32 bytes has 16 zero bits, as FastCDC does (Xia et al., USENIX ATC 2016), so that a line that was added in front moves
no other chunk. Only this side cuts; devices read lengths and digests from the manifest.

Devices never see what a folder holds beside the files that its manifest lists: such files are not published.
"""

import functools
import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.adapter import open_adapter
from edgekit.bundle import open_bundle
from edgekit.errors import PublishError
from edgekit.files import safe_join
from edgekit.onnxfile import external_tensors
from edgekit.release.manifest import MAX_CHUNK_BYTES, Kind

LARGE_TENSOR_BYTES = 64 << 10
GATHERED_BYTES = 256 << 10
LEAST_BYTES, MOST_BYTES = 16 << 10, 256 << 10
"""Of chunks that content cuts: a sixteen-bit pattern comes every 64 KiB."""

_MOST_CUT_BY_CONTENT = 64 << 20
_PADDING_BYTES = 4096
"""Filling behind a large tensor, up to a page, belongs to its last chunk."""

_WINDOW = 32
_BLOCK_BYTES = 1 << 20
_PATTERN = np.uint32(0xFFFF_0000)
"""The upper bits: each depends on all 32 bytes of the window, or nearly so."""

Spans = Sequence[tuple[int, int]]
"""Offset and length of tensors in a file."""


@dataclass(frozen=True)
class Cut:
    """One chunk of a file: where it is, and the SHA-256 of its bytes."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class CutFile:
    """A file, the SHA-256 of the whole, and its chunks end to end."""

    path: str
    size: int
    sha256: str
    chunks: tuple[Cut, ...]


def cut(folder: Path, kind: Kind) -> tuple[CutFile, ...]:
    """Chunks of every file of the bundle or adapter in `folder`, in the order of their paths. Reads each byte once.

    Raises BundleError subclasses for a folder that devices would refuse, PublishError for a file that changes now.
    """
    paths, tensors = _contents(folder, kind)
    return tuple(_cut_file(safe_join(folder, path), path, tensors.get(path)) for path in paths)


def _contents(folder: Path, kind: Kind) -> tuple[list[str], Mapping[str, Spans]]:
    """Files to publish, and where the tensors are in those that hold tensors."""
    if kind == "adapter":
        adapter = open_adapter(folder)
        listed = [entry.path for entry in adapter.manifest.files]
        return sorted([*listed, contract.ADAPTER_MANIFEST_FILE]), {contract.ADAPTER_WEIGHTS_FILE: ()}
    bundle = open_bundle(folder)
    listed = [entry.path for entry in bundle.manifest.files]
    sizes = {entry.path: entry.size for entry in bundle.manifest.files}
    tensors: dict[str, list[tuple[int, int]]] = {}
    for graph in (path for path in listed if path.endswith(".onnx")):
        for each in external_tensors(safe_join(folder, graph).read_bytes()):
            if each.location in sizes:  # the prompt's graph names a file that each device makes
                length = sizes[each.location] - each.offset if each.length is None else each.length
                tensors.setdefault(each.location, []).append((each.offset, length))
    return sorted([*listed, contract.MANIFEST_FILE]), tensors


def _cut_file(path: Path, name: str, tensors: Spans | None) -> CutFile:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if tensors is None and size <= _MOST_CUT_BY_CONTENT:
            sizes = content_defined(stream.read(size))
            stream.seek(0)
        else:
            sizes = grid(size, tensors or ())
        return _hashed(stream, name, sizes)


def _hashed(stream: BinaryIO, name: str, sizes: Iterable[int]) -> CutFile:
    whole = hashlib.sha256()
    chunks: list[Cut] = []
    at = 0
    with ThreadPoolExecutor(1) as beside:  # both digests at once: hashlib lets go of the interpreter
        for size in sizes:
            data = stream.read(size)
            if len(data) != size:
                raise PublishError(f"{name} shrank while it was read")
            digest = beside.submit(hashlib.sha256, data)
            whole.update(data)
            chunks.append(Cut(at, size, digest.result().hexdigest()))
            at += size
    if stream.read(1):
        raise PublishError(f"{name} grew while it was read")
    return CutFile(name, at, whole.hexdigest(), tuple(chunks))


def grid(size: int, tensors: Spans) -> list[int]:
    """Lengths of the chunks of a file of weights of `size` bytes, in which tensors lie; without any, a plain grid."""
    if not tensors:
        return _steps(0, size, MAX_CHUNK_BYTES)
    small = sorted(offset for offset, length in tensors if length < LARGE_TENSOR_BYTES)
    found: list[int] = []
    at = 0
    for start, end in _large(tensors, size):
        found += _gathered(at, start, small)
        found += _steps(start, end, MAX_CHUNK_BYTES)
        at = end
    return found + _gathered(at, size, small)


def _large(tensors: Spans, size: int) -> Iterator[tuple[int, int]]:
    """Where large tensors begin and end, filling included: in order, without overlaps (several names may be one)."""
    starts = sorted({offset for offset, _ in tensors} | {size})
    at = 0
    for offset, length in sorted(tensors):
        start, end = max(offset, at), min(offset + length, size)
        if length < LARGE_TENSOR_BYTES or end <= start:
            continue
        following = starts[min(bisect_right(starts, end - 1), len(starts) - 1)]
        at = following if following - end < _PADDING_BYTES else end
        yield start, at


def _gathered(start: int, end: int, small: Sequence[int]) -> list[int]:
    """Chunks of what is between large tensors: as many small ones as fit."""
    found: list[int] = []
    at = start
    while at < end:
        most = min(at + GATHERED_BYTES, end)
        before = bisect_right(small, most)
        last = small[before - 1] if before else 0
        stop = last if most < end and last > at else most
        found.append(stop - at)
        at = stop
    return found


def _steps(start: int, end: int, step: int) -> list[int]:
    return [min(step, end - at) for at in range(start, end, step)]


def content_defined(data: bytes) -> list[int]:
    """Lengths of chunks that end where the bytes before have a pattern: none shorter than LEAST_BYTES but the last."""
    found: list[int] = []
    at = 0
    for end in _ends(data):
        while end - at > MOST_BYTES:
            found.append(MOST_BYTES)
            at += MOST_BYTES
        if end - at >= LEAST_BYTES:
            found.append(end - at)
            at = end
    return found + _steps(at, len(data), MOST_BYTES)


def _ends(data: bytes) -> Iterator[int]:
    """Where a chunk may end."""
    for start in range(0, len(data), _BLOCK_BYTES):
        before = max(0, start - _WINDOW + 1)
        block = np.frombuffer(data, np.uint8, min(start + _BLOCK_BYTES, len(data)) - before, before)
        matches = np.flatnonzero((_rolling(block) & _PATTERN) == 0) + before + 1
        yield from (int(end) for end in matches if end > start)


def _rolling(block: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """At each byte, the gear hash of it and the 31 before: the sum of gear[byte] << age.

    Windows double in five steps: that of 2w bytes is that of w bytes, plus the one w bytes earlier shifted by w.
    """
    found: npt.NDArray[np.uint32] = _gear()[block]
    width = 1
    while width < _WINDOW:
        wider = found.copy()
        wider[width:] += found[:-width] << np.uint32(width)
        found, width = wider, width * 2
    return found


@functools.cache
def _gear() -> npt.NDArray[np.uint32]:
    """A random number for each byte, the same everywhere and for ever."""
    return np.array([int.from_bytes(hashlib.sha256(bytes([byte])).digest()[:4]) for byte in range(256)], np.uint32)
