"""Make the adapters of tests/golden/adapters, so that the device's tests need no exporter.

Run by hand from the project's root, once for each base; old ones stay for ever:

    python -m tests.golden.make_adapters tiny-llama-3

Two random LoRAs of the tiny llama: `warm` of every linear layer, `cold` of queries and values alone.
"""

import argparse
import tempfile
from pathlib import Path

from export.adapt.job import AdapterJob, export_adapter
from tests import loras
from tests.export.silent import SILENT

FOLDER = Path(__file__).parent
TARGETS = {"warm": loras.EVERY, "cold": loras.ATTENTION}


def make(base: str) -> None:
    """Export to adapters/`base`-warm and adapters/`base`-cold. Raises OutputExists if one is there."""
    (FOLDER / "adapters").mkdir(exist_ok=True)
    for seed, (name, targets) in enumerate(TARGETS.items()):
        with tempfile.TemporaryDirectory() as scratch:
            source = loras.write(Path(scratch) / name, loras.tensors(targets, seed=seed))
            out = FOLDER / "adapters" / f"{base}-{name}"
            export_adapter(AdapterJob(source, FOLDER / "bundles" / base, out, name=name), SILENT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="name of a folder in bundles/")
    make(parser.parse_args().base)
