"""The twin's files on disk: made in a folder of their own, checked whenever they are opened, evicted by age.

    {root}/{key}/prefill.onnx         the bundle's own bytes
    {root}/{key}/prefill.onnx.data    derived from its model.onnx.data (edgekit.twin.expand)
    {root}/{key}/stamp.json           size and SHA-256 of the derived file, and the bundle's folder

The key names the bundle, the range of codes and the version of this layout, so nothing is ever updated in place: a
folder is written beside and takes its name when it is whole; of two processes that do so at once, one is first and the
other uses its folder. What is damaged is removed and made again. Updates bring other bundles: before a twin is made,
those of bundles that are gone go.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import DiskFull, OutputExists
from edgekit.files import sha256_of, staging
from edgekit.onnxfile import MAX_GRAPH_BYTES
from edgekit.twin.codes import Reach
from edgekit.twin.expand import expand, read_layout
from edgekit.twin.layout import Layout

log = logging.getLogger(__name__)

VERSION = 1
MOST_BYTES = 8 << 30
"""Of all twins on a device."""

SHARE_OF_FREE = 5
"""A new twin takes at most a fifth of what is free: it only makes prompts faster."""

_ABANDONED_S = 86_400
_STAMP_FILE = "stamp.json"
_MAX_STAMP_BYTES = 4096
_MOST_SOURCE_BYTES = 2048


class Stamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the derived file must be. `source` is the folder of its bundle, "" where an earlier version did not say."""

    size: int
    sha256: str
    source: str = ""


@dataclass(frozen=True)
class TwinCache:
    """The twins under `root`; `most_bytes` is what all of them may take."""

    root: Path
    most_bytes: int = MOST_BYTES

    def folder(self, bundle: Bundle, reach: Reach) -> Path:
        """Where the twin of a bundle is, or would be. Raises OSError."""
        manifest = (bundle.folder / contract.MANIFEST_FILE).read_bytes()
        key = hashlib.sha256(b"%d %d " % (VERSION, reach) + manifest).hexdigest()
        return self.root / key[:32]

    def opened(self, bundle: Bundle, reach: Reach) -> Path | None:
        """The folder of a whole twin; None if there is none. A damaged one is removed. Reads every byte."""
        folder = self.folder(bundle, reach)
        if not folder.is_dir():
            return None
        if not _whole(folder, bundle):
            log.warning("the INT8 weights in %s are damaged and will be made again", folder)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            (folder / _STAMP_FILE).touch()  # the age by which twins are evicted
        return folder

    def made(self, bundle: Bundle, reach: Reach, step: Callable[[], None]) -> Path | None:
        """Make the twin; its folder, or None if the disk has no room for it.

        `step` is called every few milliseconds, and what it raises ends the work without a trace. Raises ValueError
        for a bundle whose graphs do not belong together, and OSError.
        """
        layout = read_layout(bundle.folder, bundle.manifest.quant.weights)
        folder = self.folder(bundle, reach)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep(time.time())
        if not self._has_room(layout.size_bytes, folder):
            return None
        try:
            with staging(folder, needed_bytes=layout.size_bytes) as partial:
                _fill(partial, bundle, layout, reach, step)
        except OutputExists:  # another process was faster
            return self.opened(bundle, reach)
        except DiskFull as error:
            log.warning("prompts are read with INT4 weights: %s", error)
            return None
        return folder

    def _sweep(self, now: float) -> None:
        """Remove what processes left that died while they wrote, and twins of bundles that are gone."""
        for partial in self.root.glob(".*.partial-*"):
            with contextlib.suppress(OSError):
                if now - partial.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(partial, ignore_errors=True)
        for folder in self.root.glob("[!.]*/"):
            if _is_orphan(folder):
                log.info("removing the INT8 weights in %s, whose bundle is gone", folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _has_room(self, size: int, folder: Path) -> bool:
        """Remove the twins that were not used for longest until `size` more bytes are allowed."""
        others = sorted((_used(each), each) for each in self.root.iterdir() if each.is_dir() and each != folder)
        taken = sum(_size(each) for _, each in others)
        for _, each in others:
            if taken + size <= self.most_bytes and size * SHARE_OF_FREE <= shutil.disk_usage(self.root).free:
                break
            if size > self.most_bytes:
                break
            taken -= _size(each)
            log.info("removing the INT8 weights in %s, which were not used for longest", each)
            shutil.rmtree(each, ignore_errors=True)
        free = shutil.disk_usage(self.root).free
        if taken + size <= self.most_bytes and size * SHARE_OF_FREE <= free:
            return True
        log.warning(
            "prompts are read with INT4 weights: INT8 ones would take %d MB, and %d MB are free", size >> 20, free >> 20
        )
        return False


def _fill(folder: Path, bundle: Bundle, layout: Layout, reach: Reach, step: Callable[[], None]) -> None:
    graph = bundle.read(contract.PREFILL_FILE, limit_bytes=MAX_GRAPH_BYTES)
    (folder / contract.PREFILL_FILE).write_bytes(graph)
    data = bundle.path(contract.DATA_FILE)
    digest = expand(data, folder / contract.PREFILL_DATA, layout, reach=reach, step=step)
    stamp = Stamp(layout.size_bytes, digest, _source(bundle))
    (folder / _STAMP_FILE).write_bytes(msgspec.json.encode(stamp))


def _source(bundle: Bundle) -> str:
    """The bundle's folder, if a stamp can say it."""
    path = str(bundle.folder.resolve())
    return path if len(os.fsencode(path)) <= _MOST_SOURCE_BYTES and path.isprintable() else ""


def _stamp(folder: Path) -> Stamp | None:
    """Raises OSError, or msgspec.DecodeError for what is none."""
    path = folder / _STAMP_FILE
    return None if path.stat().st_size > _MAX_STAMP_BYTES else msgspec.json.decode(path.read_bytes(), type=Stamp)


def _is_orphan(folder: Path) -> bool:
    """Whether its bundle is gone for certain; what cannot be read is no reason to remove anything."""
    try:
        stamp = _stamp(folder)
        return stamp is not None and bool(stamp.source) and not (Path(stamp.source) / contract.MANIFEST_FILE).exists()
    except (OSError, ValueError, msgspec.DecodeError):
        return False


def _whole(folder: Path, bundle: Bundle) -> bool:
    try:
        data, stamp = folder / contract.PREFILL_DATA, _stamp(folder)
        if stamp is None or data.is_symlink():
            return False
        graph = bundle.read(contract.PREFILL_FILE, limit_bytes=MAX_GRAPH_BYTES)
        same_graph = (folder / contract.PREFILL_FILE).read_bytes() == graph
        return same_graph and data.stat().st_size == stamp.size and sha256_of(data) == stamp.sha256
    except (OSError, msgspec.DecodeError):
        return False


def _used(folder: Path) -> float:
    """When a twin was opened last; what has no stamp was never finished or is no twin, and goes first."""
    with contextlib.suppress(OSError):
        return (folder / _STAMP_FILE).stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
