"""How much memory and time an export takes, by the size of the model.

    python tests/bench/export_memory.py [--layers 22] [--quant int4] [--folder DIR]

Makes a llama-shaped checkpoint with random float16 weights (TinyLlama's widths: 1.1 billion weights, 2.2 GB
with the default 22 layers), exports it in a process of its own, and prints the peak resident memory that
the operating system saw. Needs as much free disk as the checkpoint and the bundle together.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny

SHAPE = tiny.Config(
    hidden=2048, heads=32, kv_heads=4, head_dim=64, intermediate=5632, vocab=32000, context=2048, layers=1
)


def make_checkpoint(folder: Path, layers: int) -> int:
    """Write config, tokenizer and one safetensors shard per layer; returns their bytes."""
    tiny.write_hf_folder(folder, tiny.Config(layers=1))  # for its small files; configuration and weights are replaced
    (folder / "model.safetensors").unlink()
    tiny.write_json(folder / "config.json", tiny.hf_config(dataclasses.replace(SHAPE, layers=layers)))
    random = np.random.default_rng(0)
    shapes = tiny.shapes(SHAPE)
    index: dict[str, str] = {}
    for layer in range(-1, layers):  # -1: what belongs to no layer
        tensors = {
            name.replace(".layers.0.", f".layers.{layer}."): _random(random, shape)
            for name, shape in shapes.items()
            if (".layers." in name) == (layer >= 0)
        }
        file = f"model-{layer + 1:05}.safetensors"
        save_file(tensors, str(folder / file))
        index |= dict.fromkeys(tensors, file)
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": index})
    return sum(path.stat().st_size for path in folder.iterdir())


def _random(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    return (random.standard_normal(shape, np.float32) * 0.02).astype(np.float16)


def main() -> None:
    """Make, export, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--quant", default="int4", choices=("int4", "int8", "fp32"))
    parser.add_argument("--folder", type=Path, help="where to put the files; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        source, out = Path(scratch, "source"), Path(scratch, "bundle")
        size = make_checkpoint(source, options.layers)
        command = [sys.executable, "-m", "edgekit", "export", str(source), "-o", str(out), "--quant", options.quant]
        result = json.loads(subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE).stdout)
    print("| checkpoint | bundle | seconds | peak memory |")
    print("|---|---|---|---|")
    print(
        f"| {size / 1e9:.2f} GB float16 | {result['bytes'] / 1e9:.2f} GB {options.quant} "
        f"| {result['seconds']:.0f} | {result['peak_rss_bytes'] / 1e6:,.0f} MB |"
    )


if __name__ == "__main__":
    main()
