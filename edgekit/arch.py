"""ModelArch: the frozen facts of a decoder, as both sides need them.

The exporter fills it from a checkpoint's configuration; it travels inside `bundle.json`; the
device sizes its cache by it. Field names follow the papers and `config.json`.
"""

from typing import Literal

import msgspec

MAX_DIMENSION = 1 << 24
"""No layer count, width or vocabulary of a small language model comes near this: a bound for untrusted files."""


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rotary frequencies are stretched beyond the trained context.

    `linear` divides every frequency by `factor` (Chen et al. 2023, position interpolation);
    `llama3` does so only for wavelengths beyond `original_context / low_freq_factor` and blends
    up to `original_context / high_freq_factor` (Llama 3.1 reference code).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


class Rotary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rotary position embedding (Su et al. 2021, half-split as in GPT-NeoX).

    `dim` is how many of `head_dim` values are rotated, `base` the frequency base.
    """

    dim: int
    base: float
    scaling: RopeScaling | None = None


class ModelArch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoder-only transformer with RMSNorm and a gated MLP.

    Widths count values, `context` counts tokens. Attention projections are
    `heads * head_dim` (query) and `kv_heads * head_dim` (key, value) wide.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    norm_eps: float
    rotary: Rotary
    activation: Literal["silu", "gelu_tanh"]
    tied: bool
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for facts that cannot be true together."""
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context"):
            if not 0 < getattr(self, name) < MAX_DIMENSION:
                raise ValueError(f"{name} is {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key/value heads")
        if not 0 < self.rotary.dim <= self.head_dim or self.rotary.dim % 2:
            raise ValueError(f"rotary.dim is {self.rotary.dim} and head_dim {self.head_dim}")

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one more token of context takes in a float32 KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 4

    @property
    def parameters(self) -> int:
        """Number of weights, a tied embedding counted once."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocab * self.hidden * (1 if self.tied else 2)
