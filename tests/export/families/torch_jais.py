"""Jais in torch, written after the definition that is published with its checkpoints (modeling_jais.py).

It has no cache. Weights of projections are [inputs, outputs], as in GPT-2. Whatever the definition computes in
another order but to the same value is written in the shortest way here.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """x @ weight + bias (GPT-2's Conv1D)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def slopes(heads: int) -> list[float]:
    """Of ALiBi; beyond a power of two, heads take every second slope of twice as many."""
    if heads & (heads - 1) == 0:
        return [2.0 ** (-8 * (i + 1) / heads) for i in range(heads)]
    power = 1 << (heads.bit_length() - 1)
    return slopes(power) + slopes(2 * power)[::2][: heads - power]


class Attention(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.heads = config.n_head
        self.power = 1.0 if config.by_width else 0.5
        self.c_attn = Projection(config.n_embd, 3 * config.n_embd)
        self.c_proj = Projection(config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        tokens, width = x.shape[1:]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).split(width, -1))
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** self.power
        places = torch.arange(tokens)
        distance = (places[None] - places[:, None]).abs()
        scores = scores - torch.tensor(slopes(self.heads))[:, None, None] * distance
        scores = scores.masked_fill(places[None] > places[:, None], -math.inf)
        out: Tensor = self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        self.c_fc = Projection(config.n_embd, inner)
        self.c_fc2 = Projection(config.n_embd, inner)
        self.c_proj = Projection(inner, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(self.c_fc(x) * nn.functional.silu(self.c_fc2(x)))
        return out


class Block(nn.Module):
    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Jais(nn.Module):
    """Embedding and LM head are one matrix, as in every published checkpoint."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        super().__init__()
        self.settings = settings
        self.config = _facts(settings)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(self.config.vocab_size, self.config.n_embd),
                "h": nn.ModuleList(Block(self.config) for _ in range(self.config.n_layer)),
                "ln_f": nn.LayerNorm(self.config.n_embd, self.config.layer_norm_epsilon),
            }
        )

    def forward(self, ids: Tensor, *, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        parts: Any = self.transformer
        x = parts["wte"](ids) * self.config.embeddings_scale
        for block in parts["h"]:
            x = block(x)
        return SimpleNamespace(logits=parts["ln_f"](x) @ parts["wte"].weight.T * self.config.logits_scale)

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer["wte"]

    def save_pretrained(self, folder: Path) -> None:
        """Weights, the slopes that the original keeps beside them, and config.json."""
        folder.mkdir(parents=True)
        tensors = {name: values.detach().clone() for name, values in self.state_dict().items()}
        tensors["transformer.relative_pe.slopes"] = torch.tensor(slopes(self.config.n_head))[:, None]
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(dict(self.settings)), encoding="utf-8")


def _facts(settings: Mapping[str, object]) -> SimpleNamespace:
    config = SimpleNamespace(**{"layer_norm_epsilon": 1e-5, "n_inner": None, **settings})
    older = "width_scale" in settings
    config.by_width = config.scale_qk_dot_by_d if older else config.mup_scale_qk_dot_by_d
    config.embeddings_scale = config.embeddings_scale if older else config.mup_embeddings_scale
    config.logits_scale = config.width_scale if older else config.mup_output_alpha * config.mup_width_scale
    return config
