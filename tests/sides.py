"""Which tests a device's install can run, and which need the build machine's: every test is of one side.

One rule decides for both options of conftest.py, `--device-only` and `--build-side`, so that nothing falls between.
"""

import functools
import sys
from collections.abc import Collection
from pathlib import Path

from tests.imports import ROOT, rooms_of

DEVICE_TESTS = (ROOT / "tests" / "edgekit", ROOT / "tests" / "device_agent", ROOT / "tests" / "packaging" / "install")
DEVICE_MODULES = {
    *("edgekit", "device_agent"),
    *(
        "click",
        "flask",
        "jinja2",
        "llguidance",
        "msgspec",
        "numpy",
        "onnxruntime",
        "psutil",
        "securesystemslib",
        "tokenizers",
        "tuf",
        "urllib3",
        "waitress",
        "werkzeug",
    ),
    *("hypothesis", "packaging", "pytest"),  # `packaging` is a part of pytest
}
OTHER_MARKERS = {"browser", "demo", "encoder", "genai", "programs", "reference"}


def is_of_device(file: Path, markers: Collection[str]) -> bool:
    """Whether a device's install runs a test of this file that has these markers."""
    return is_file_of_device(file) and not OTHER_MARKERS & set(markers)


@functools.cache
def is_file_of_device(file: Path) -> bool:
    """Whether a device's install can import a file of tests: its imports, and those of what it imports, tell."""
    if not any(folder in file.parents for folder in DEVICE_TESTS):
        return False
    return not rooms_of(file) - DEVICE_MODULES - sys.stdlib_module_names


def is_folder_of_device(folder: Path) -> bool:
    """Whether such files may be in it, or it is one that they are in."""
    return any(folder in (room, *room.parents) or room in folder.parents for room in DEVICE_TESTS)
