"""How much memory and time an export takes, by the size of the model.

    python tests/bench/export_memory.py [--layers 22] [--quant int4] [--folder DIR]

Makes a llama-shaped checkpoint with random float16 weights (TinyLlama's widths: 1.1 billion weights, 2.2 GB
with the default 22 layers), exports it in a process of its own, and prints the peak resident memory that
the operating system saw. Needs as much free disk as the checkpoint and the bundle together.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny

WIDTHS = {"hidden": 2048, "heads": 32, "kv_heads": 4, "head_dim": 64, "intermediate": 5632, "vocab": 32000, "context": 2048}


def make_checkpoint(folder: Path, layers: int) -> int:
    """Write config, tokenizer and one safetensors shard per layer; returns their bytes."""
    config = tiny.Config(layers=layers, **WIDTHS)
    tiny.write_hf_folder(folder, tiny.Config(layers=1))  # the small files; the weights are replaced
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    (folder / "config.json").write_text(json.dumps(tiny.hf_config(config)))
    random = np.random.default_rng(0)
    shapes = {name: array.shape for name, array in tiny.weights(tiny.Config(layers=1)).items()}
    grown = {64: config.hidden, 96: config.intermediate, 320: config.vocab, 32: config.kv_heads * config.head_dim}
    index: dict[str, str] = {}
    for shard in range(-1, layers):
        names = [name for name in shapes if (".layers." in name) == (shard >= 0)]
        tensors = {
            name.replace(".layers.0.", f".layers.{shard}."): _random(random, tuple(grown[n] for n in shapes[name]))
            for name in names
        }
        file = f"model-{shard + 1:05}.safetensors"
        save_file(tensors, str(folder / file))
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return sum(path.stat().st_size for path in folder.iterdir())


def _random(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
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
        command = [sys.executable, "-m", "edgekit", "export", str(source), "-o", str(out), "--quant", options.quant, "--json"]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print("| checkpoint | bundle | seconds | peak memory |")
    print("|---|---|---|---|")
    print(
        f"| {size / 1e9:.2f} GB float16 | {result['bytes'] / 1e9:.2f} GB {options.quant} "
        f"| {result['seconds']:.0f} | {result['peak_rss_bytes'] / 1e6:,.0f} MB |"
    )


if __name__ == "__main__":
    main()
