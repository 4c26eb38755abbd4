"""Loading a bundle only if every byte of it is what its manifest says."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from device_agent import stamps
from edgekit import contract
from edgekit.bundle import Bundle, changed_files
from edgekit.errors import CorruptBundle

Loaded = TypeVar("Loaded")


def checked(bundle: Bundle, load: Callable[[], Loaded], *, remembered: Path | None = None) -> Loaded:
    """What `load` returns, once every file's hash is right. Raises CorruptBundle.

    What gets parsed is hashed first. Weights are only numbers: they are hashed beside loading, on another core. With
    a folder `remembered`, a bundle that was whole and has not been touched since is not hashed again (see `stamps`).
    """
    if remembered is not None and stamps.is_checked(remembered, bundle, now_s=time.time()):
        return load()
    before = None if remembered is None else stamps.state_of(bundle, now_s=time.time())
    weights = [entry for entry in bundle.manifest.files if entry.path == contract.DATA_FILE]
    _refuse(bundle, changed_files(bundle, [entry for entry in bundle.manifest.files if entry not in weights]))
    with ThreadPoolExecutor(1) as beside:
        changed = beside.submit(changed_files, bundle, weights)
        loaded = load()
        _refuse(bundle, changed.result())
    if remembered is not None and before is not None:
        stamps.note_checked(remembered, bundle, before, now_s=time.time())
    return loaded


def _refuse(bundle: Bundle, names: Sequence[str]) -> None:
    if names:
        raise CorruptBundle(str(bundle.folder), f"{', '.join(names)}: not the SHA-256 that was recorded")
