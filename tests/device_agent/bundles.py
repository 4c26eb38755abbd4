"""The committed bundles, and copies of them that a test may damage."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent import Model
from edgekit import contract
from tests.imports import ROOT

FOLDERS = sorted(path for path in (ROOT / "tests" / "golden" / "bundles").iterdir() if path.is_dir())
TINY = ROOT / "tests" / "golden" / "bundles" / "tiny-llama-1"
INT8 = TINY.with_name("tiny-llama-int8-1")
"""The same model, whose cached keys and values are INT8."""
TWIN = TINY.with_name("tiny-llama-2")
"""With a graph that reads prompts."""
ADAPTABLE = TINY.with_name("tiny-llama-3")
"""With graphs that read prompts and that take adapters."""
WARM, COLD = (ROOT / "tests" / "golden" / "adapters" / f"{ADAPTABLE.name}-{name}" for name in ("warm", "cold"))
"""Adapters of it: of every linear, and of queries and values alone."""
CONCAT = TINY.with_name("tiny-opt-1")
"""Its graph was made by another exporter: its cache grows by copying."""
ENCODER = TINY.with_name("tiny-bert-1")
"""It makes vectors."""
FILES = [entry["path"] for entry in json.loads((TINY / contract.MANIFEST_FILE).read_bytes())["files"]]
CONTEXT = 2048
VOCAB = 320
NO_END = {0: -100.0, 2: -100.0}
"""A logit_bias that keeps the tiny model from ending its answer."""


def copy_to(folder: Path, source: Path = TINY) -> Path:
    """A copy of a committed bundle that may be changed."""
    return Path(shutil.copytree(source, folder / "bundle"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change bundle.json."""
    path = folder / contract.MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def seal(folder: Path) -> None:
    """Make the manifest agree with the files again, as someone who tampers would."""

    def change(manifest: dict[str, Any]) -> None:
        for entry in manifest["files"]:
            raw = (folder / entry["path"]).read_bytes()
            entry.update(size=len(raw), sha256=hashlib.sha256(raw).hexdigest())

    edit(folder, change)


def set_fields(**fields: Any) -> Callable[[Path], None]:
    """A change of bundle.json: `a__b=1` sets field b of a."""

    def apply(folder: Path) -> None:
        def change(manifest: dict[str, Any]) -> None:
            for name, value in fields.items():
                *way, last = name.split("__")
                target = manifest
                for step in way:
                    target = target[step]
                target[last] = value

        edit(folder, change)

    return apply


def tokens_when_idle(model: Model) -> int:
    """How many tokens the model had written since it was opened when it came to rest, which it does when told."""
    while model.busy:
        time.sleep(0)  # a spin that lets the model's thread have the interpreter
    return model.state().written_tokens
