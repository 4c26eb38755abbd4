"""Make a bundle for tests/golden/bundles, so that the device's tests need no exporter and old bundles stay readable.

Run by hand from the project's root when the format changes, with a new name; the old ones stay for ever:

    python -m tests.golden.make_bundle tiny-llama-2

The model is tests/tiny.py's random llama with a context long enough for its cache to grow, quantised to INT4.
"""

import argparse
import tempfile
from pathlib import Path

from export.pipeline import ExportJob, export
from tests import tiny
from tests.export.silent import SILENT

FOLDER = Path(__file__).parent / "bundles"
CONFIG = tiny.Config(context=2048)
MAX_BYTES = 300_000


def make(name: str) -> Path:
    """Export to bundles/`name`. Raises OutputExists if it is there, and ValueError if it is too large to commit."""
    with tempfile.TemporaryDirectory() as scratch:
        source = tiny.write_hf_folder(Path(scratch) / "tiny-llama", CONFIG)
        manifest = export(ExportJob(source, FOLDER / name, "int4", name="tiny-llama"), SILENT)
    if manifest.file_bytes > MAX_BYTES:
        raise ValueError(f"{manifest.file_bytes:,} bytes are too many for the repository")
    return FOLDER / name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the new folder's name")
    make(parser.parse_args().name)
