"""How long an export takes and how much memory, against onnxruntime-genai's model builder.

    python tests/bench/export_speed.py [--rival PYTHON] [--layers 32] [--quant int4] [--rounds 1] [--folder DIR]

Makes a checkpoint of Phi-2's shape with random float16 weights (2.78 billion with all 32 layers, 5.6 GB) and
exports it, each tool in a process of its own, in turn. Memory is the peak that the operating system saw. `--rival`
is the Python of an environment with onnxruntime-genai, torch and transformers; without it only ours is measured.
Ours verifies what it wrote, writes a tokenizer and hashes every file; the builder writes the graph. Needs as much
free disk as the checkpoint and both models together.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny

HIDDEN, INTERMEDIATE, HEADS, VOCAB, CONTEXT = 2560, 10240, 32, 51200, 2048
CONFIG: dict[str, object] = {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "partial_rotary_factor": 0.4,
    "hidden_act": "gelu_new",
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "layer_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "qk_layernorm": False,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "bos_token_id": tiny.IM_START,
    "eos_token_id": tiny.IM_END,
    "pad_token_id": tiny.IM_END,
}


class Run(NamedTuple):
    """Seconds, peak resident memory and size of what was written."""

    seconds: float
    peak_bytes: int
    model_bytes: int


def make_checkpoint(folder: Path, layers: int) -> int:
    """Write config, tokenizer and one safetensors shard per layer; returns their bytes."""
    tiny.write_hf_folder(folder, tiny.Config(layers=1))  # for its small files; configuration and weights are replaced
    (folder / "model.safetensors").unlink()
    tiny.write_json(folder / "config.json", {**CONFIG, "num_hidden_layers": layers})
    random = np.random.default_rng(0)
    shards = [_ends(), *(_layer(i) for i in range(layers))]
    index: dict[str, str] = {}
    for number, shapes in enumerate(shards):
        file = f"model-{number:05}.safetensors"
        save_file({name: _random(random, name, shape) for name, shape in shapes.items()}, str(folder / file))
        index |= dict.fromkeys(shapes, file)
    tiny.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    return sum(path.stat().st_size for path in folder.iterdir())


def _ends() -> dict[str, tuple[int, ...]]:
    return {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.final_layernorm.weight": (HIDDEN,),
        "model.final_layernorm.bias": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
        "lm_head.bias": (VOCAB,),
    }


def _layer(i: int) -> dict[str, tuple[int, ...]]:
    at = f"model.layers.{i}"
    square = {f"{at}.self_attn.{name}": (HIDDEN, HIDDEN) for name in ("q_proj", "k_proj", "v_proj", "dense")}
    matrices = square | {f"{at}.mlp.fc1": (INTERMEDIATE, HIDDEN), f"{at}.mlp.fc2": (HIDDEN, INTERMEDIATE)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
    return shapes | {f"{at}.input_layernorm.{kind}": (HIDDEN,) for kind in ("weight", "bias")}


def _random(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float16]:
    if len(shape) == 1:
        return np.full(shape, 1 if "norm.weight" in name else 0, np.float16)
    return (random.standard_normal(shape, np.float32) * 0.02).astype(np.float16)


def ours(source: Path, out: Path, quant: str) -> Run:
    """`edgekit export`, verification included."""
    return _measured([sys.executable, "-m", "edgekit", "export", str(source), "-o", str(out), "--quant", quant], out)


def builder(python: Path, source: Path, out: Path, quant: str) -> Run:
    """onnxruntime-genai's builder with its defaults for the CPU."""
    command = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(out)]
    return _measured([*command, "-p", quant, "-e", "cpu", "-c", str(out.parent / "cache")], out)


def _measured(command: list[str], out: Path) -> Run:
    """Run a command to its end; its own peak memory comes from the operating system's account of the child."""
    started = time.monotonic()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - started
    if status != 0:
        raise SystemExit(f"{command[:4]} failed:\n{said.decode()[-3000:]}")
    size = sum(path.stat().st_size for path in out.iterdir() if ".onnx" in path.name)
    shutil.rmtree(out)
    return Run(seconds, usage.ru_maxrss * 1024, size)


def main() -> None:
    """Make, export in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", type=Path, help="python of an environment with onnxruntime-genai's builder")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--quant", default="int4", choices=("int4", "int8", "fp32"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to put the files; default: a temporary folder")
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {"edgekit": [], "onnxruntime-genai builder": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        source, out = Path(scratch, "source"), Path(scratch, "out")
        size = make_checkpoint(source, options.layers)
        for _ in range(options.rounds):
            runs["edgekit"].append(ours(source, out, options.quant))
            if options.rival:
                runs["onnxruntime-genai builder"].append(builder(options.rival, source, out, options.quant))
    print(json.dumps(runs), file=sys.stderr)
    print(f"Phi-2's shape, {options.layers} layers, {size / 1e9:.2f} GB of float16, {options.quant}\n")
    print("| tool | seconds | peak memory | model |\n|---|---|---|---|")
    for name, found in runs.items():
        if found:
            seconds, peak, model = (median(run[at] for run in found) for at in range(3))
            print(f"| {name} | {seconds:.0f} | {peak / 1e6:,.0f} MB | {model / 1e9:.2f} GB |")


if __name__ == "__main__":
    main()
