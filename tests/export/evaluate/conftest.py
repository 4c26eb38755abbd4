"""Bundles of the tiny model, made once for all tests of this room, which only read them."""

from pathlib import Path

import pytest

from tests import tiny
from tests.export.exports import export_tiny


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_hf_folder(tmp_path_factory.mktemp("evaluate") / "tiny")


@pytest.fixture(scope="session")
def float_bundle(source: Path) -> Path:
    export_tiny(source, source.parent / "fp32", "fp32")
    return source.parent / "fp32"


@pytest.fixture(scope="session")
def int4_bundle(source: Path) -> Path:
    export_tiny(source, source.parent / "int4", "int4")
    return source.parent / "int4"
