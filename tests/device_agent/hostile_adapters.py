"""Copies of the committed adapters that a test may damage."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgekit import contract


def copy_of(adapter: Path, folder: Path) -> Path:
    return Path(shutil.copytree(adapter, folder / "adapter"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change adapter.json."""
    path = folder / contract.ADAPTER_MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def seal(folder: Path) -> None:
    """Make the manifest agree with the weights again, as someone who tampers would."""
    raw = (folder / contract.ADAPTER_WEIGHTS_FILE).read_bytes()
    entry = {"path": contract.ADAPTER_WEIGHTS_FILE, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    rewrite(folder, lambda manifest: manifest.update(files=[entry]))


def tensors_of(folder: Path) -> dict[str, NDArray[Any]]:
    found = onnxruntime.AdapterFormat.read_adapter(str(folder / contract.ADAPTER_WEIGHTS_FILE)).get_parameters()
    return {name: value.numpy().copy() for name, value in found.items()}


def write_tensors(folder: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Other weights in the same format, sealed."""
    made = onnxruntime.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters(
        {n: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(t)) for n, t in tensors.items()}
    )
    made.export_adapter(str(folder / contract.ADAPTER_WEIGHTS_FILE))
    seal(folder)
