"""PEFT folders of random LoRAs for the tiny llama, made by hand."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tests import tiny

Tensors = dict[str, NDArray[Any]]
PREFIX = "base_model.model."
ATTENTION = ("self_attn.q_proj", "self_attn.v_proj")
EVERY = tuple(
    name.split(".", 3)[3].removesuffix(".weight") for name in tiny.shapes() if "layers.0." in name and "_proj" in name
)
CONFIG: dict[str, object] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}


def low_rank(module: str, outputs: int, inputs: int, *, rank: int = 4, seed: int = 0) -> Tensors:
    """Tensors of one adapted linear layer, under PEFT's names."""
    made = np.random.default_rng([seed, len(module), *module.encode()])
    shapes = {"lora_A": (rank, inputs), "lora_B": (outputs, rank)}
    return {
        f"{PREFIX}{module}.{name}.weight": made.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def tensors(
    targets: Iterable[str] = EVERY, *, rank: int = 4, seed: int = 0, config: tiny.Config = tiny.DEFAULT
) -> Tensors:
    """Of these modules of every layer."""
    shapes, found = tiny.shapes(config), Tensors()
    for layer in range(config.layers):
        for target in targets:
            module = f"model.layers.{layer}.{target}"
            found |= low_rank(module, *shapes[f"{module}.weight"], rank=rank, seed=seed)
    return found


def write(folder: Path, found: Tensors | None = None, **changed: object) -> Path:
    """A PEFT folder; `changed` are keys of adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_json(folder / "adapter_config.json", CONFIG | changed)
    safetensors.numpy.save_file(tensors() if found is None else found, folder / "adapter_model.safetensors")
    return folder
