"""Make a bundle for tests/golden/bundles, so that the device's tests need no exporter and old bundles stay readable.

Run by hand from the project's root when the format changes, with a new name; the old ones stay for ever:

    python -m tests.golden.make_bundle llama tiny-llama-2

The models are tiny and random, quantised to INT4: tests/tiny.py's llama with a context long enough for its cache to
grow, and the same with an INT8 cache (`cache: int8`); an OPT, whose graph optimum's exporter makes (`kv: concat`);
and a BERT that makes vectors (`task: embed`). The last two need the extra `reference`.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekit.contract import CacheType
from export.job import ExportJob
from export.pipeline import export
from tests import tiny
from tests.export.silent import SILENT

FOLDER = Path(__file__).parent / "bundles"
MAX_BYTES = 300_000


def _llama(folder: Path) -> Path:
    return tiny.write_hf_folder(folder, tiny.Config(context=2048))


def _opt(folder: Path) -> Path:
    from tests.export.optimum import tiny_models

    return tiny_models.write_decoder(folder, "opt")


def _bert(folder: Path) -> Path:
    from tests.export.optimum import tiny_models

    return tiny_models.write_encoder(folder)


SOURCES: Mapping[str, Callable[[Path], Path]] = {"llama": _llama, "llama-int8": _llama, "opt": _opt, "bert": _bert}
CACHES: Mapping[str, CacheType] = {"llama-int8": "int8"}


def make(kind: str, name: str) -> Path:
    """Export to bundles/`name`. Raises OutputExists if it is there, and ValueError if it is too large to commit."""
    with tempfile.TemporaryDirectory() as scratch:
        source = SOURCES[kind](Path(scratch) / f"tiny-{kind}")
        manifest = export(
            ExportJob(source, FOLDER / name, "int4", name=f"tiny-{kind}", kv=CACHES.get(kind, "float32")), SILENT
        )
    if manifest.file_bytes > MAX_BYTES:
        raise ValueError(f"{manifest.file_bytes:,} bytes are too many for the repository")
    return FOLDER / name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SOURCES, help="which model")
    parser.add_argument("name", help="the new folder's name")
    make(**vars(parser.parse_args()))
