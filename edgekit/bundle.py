"""Opening a folder as a bundle: everything that can be checked without running it.

`open_bundle` checks what costs nothing (the manifest, sizes, paths, where the graph's weights are);
`changed_files` reads every byte and compares hashes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit import contract
from edgekit.errors import BundleError, CorruptBundle, NotABundle, UnsafePath
from edgekit.files import safe_join, sha256_of
from edgekit.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, is_safe_path, parse
from edgekit.onnxfile import MAX_GRAPH_BYTES, external_tensors


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest was read and whose files have the sizes that it says."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where a listed file is. Raises CorruptBundle if the manifest does not list it."""
        if all(entry.path != name for entry in self.manifest.files):
            raise CorruptBundle(str(self.folder), f"it has no {name}")
        return safe_join(self.folder, name)

    def read(self, name: str, *, limit_bytes: int) -> bytes:
        """A listed file's bytes. Raises CorruptBundle if it is larger than `limit_bytes`."""
        path = self.path(name)
        if path.stat().st_size > limit_bytes:
            raise CorruptBundle(str(self.folder), f"{name} is larger than {limit_bytes:,} bytes")
        return path.read_bytes()

    def has(self, name: str) -> bool:
        """Whether the manifest lists the file."""
        return any(entry.path == name for entry in self.manifest.files)


def open_bundle(folder: Path) -> Bundle:
    """Read and check `folder`. Raises NotABundle, UnsupportedFormat, CorruptBundle or UnsafePath."""
    bundle = Bundle(folder, read_manifest(folder))
    found = _problems(bundle)
    if found:
        raise found[0]
    return bundle


def read_manifest(folder: Path) -> Manifest:
    """`bundle.json` alone. Raises NotABundle, UnsupportedFormat, CorruptBundle or UnsafePath."""
    path = folder / contract.MANIFEST_FILE
    if not folder.is_dir():
        raise NotABundle(str(folder), "there is no such folder")
    if not path.is_file():
        raise NotABundle(str(folder), f"the folder has no {contract.MANIFEST_FILE}")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise CorruptBundle(str(folder), f"{contract.MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES:,} bytes")
    return parse(path.read_bytes(), path=str(folder))


def problems(bundle: Bundle) -> list[BundleError]:
    """Everything that is wrong with the files, hashes included, in the order of the manifest."""
    found = _problems(bundle)
    return found or [
        CorruptBundle(str(bundle.folder), f"{name} has changed: its SHA-256 is not the one that was recorded")
        for name in changed_files(bundle)
    ]


def changed_files(bundle: Bundle, entries: Iterable[FileEntry] | None = None) -> list[str]:
    """Names of the files (all, or those of `entries`) whose SHA-256 is not the manifest's: reads every byte."""
    checked = bundle.manifest.files if entries is None else entries
    return [entry.path for entry in checked if sha256_of(safe_join(bundle.folder, entry.path)) != entry.sha256]


def _problems(bundle: Bundle) -> list[BundleError]:
    folder = str(bundle.folder)
    found: list[BundleError] = []
    for entry in bundle.manifest.files:
        try:
            path = safe_join(bundle.folder, entry.path)
        except UnsafePath as error:
            found.append(error)
            continue
        if not path.is_file():
            found.append(CorruptBundle(folder, f"{entry.path} is missing"))
        elif path.stat().st_size != entry.size:
            found.append(CorruptBundle(folder, f"{entry.path} has {path.stat().st_size:,} bytes, not {entry.size:,}"))
    graphs = [entry.path for entry in bundle.manifest.files if entry.path.endswith(".onnx")]
    if contract.MODEL_FILE not in graphs:
        found.append(CorruptBundle(folder, f"it has no {contract.MODEL_FILE}"))
    return found or [problem for graph in graphs for problem in _graph_problems(bundle, graph)]


def _graph_problems(bundle: Bundle, graph: str) -> list[BundleError]:
    """Weights must be inside listed files: a graph may name any path, and an operating system would open it.

    The prompt's graph names one file that no bundle has. It is never opened in the bundle's folder: the device makes
    the file elsewhere and holds every tensor against what it wrote (edgekit.twin).
    """
    folder = str(bundle.folder)
    sizes = {entry.path: entry.size for entry in bundle.manifest.files}
    try:
        tensors = external_tensors(bundle.read(graph, limit_bytes=MAX_GRAPH_BYTES))
    except ValueError as error:  # UnicodeDecodeError is one too
        return [CorruptBundle(folder, f"{graph} is not an ONNX file: {error}")]
    for tensor in tensors:
        if graph == contract.PREFILL_FILE and tensor.location == contract.PREFILL_DATA:
            continue
        if not is_safe_path(tensor.location):
            return [UnsafePath(folder, f"{graph} keeps {tensor.name!r} in {tensor.location!r}")]
        if tensor.location not in sizes:
            return [CorruptBundle(folder, f"{graph} keeps {tensor.name!r} in {tensor.location!r}, which is not listed")]
        end = tensor.offset + (tensor.length or 0)
        if tensor.offset < 0 or end < tensor.offset or end > sizes[tensor.location]:
            return [CorruptBundle(folder, f"{graph} keeps {tensor.name!r} beyond the end of {tensor.location!r}")]
    return []
