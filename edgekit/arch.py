"""ModelArch: the frozen facts of a decoder, as both sides need them.

The exporter fills it from a checkpoint's configuration; it travels inside `bundle.json`; the
device sizes its cache by it. Field names follow the papers and `config.json`.
"""

from typing import Literal

import msgspec

MAX_DIMENSION = 1 << 24
"""No layer count, width or vocabulary of a small language model comes near this: a bound for untrusted files."""

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]
ScalingKind = Literal["linear", "llama3", "yarn", "longrope", "table"]


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How rotary frequencies are stretched beyond the trained context.

    `linear` divides every frequency by `factor` (Chen et al. 2023, position interpolation);
    `llama3` does so only for wavelengths beyond `original_context / low_freq_factor` and blends
    up to `original_context / high_freq_factor` (Llama 3.1 reference code);
    `yarn` blends between the dimensions that turn `beta_fast` and `beta_slow` times (Peng et al. 2023);
    `longrope` divides each frequency by its own number: of `short` in texts up to `original_context`, of `long`
    in longer ones (Ding et al. 2024);
    `table` divides each frequency by its number in `short` (GGUF's `rope_freqs`).
    `attention_factor` multiplies cosines and sines.
    """

    kind: ScalingKind
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    original_context: int = 8192
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()


class Rotary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rotary position embedding (Su et al. 2021).

    `dim` is how many of `head_dim` values are rotated, `base` the frequency base. Pairs are (j, j + dim / 2) as in
    GPT-NeoX, or neighbours (2j, 2j + 1) if `interleaved`, as in GPT-J and Command R.
    """

    dim: int
    base: float
    interleaved: bool = False
    scaling: RopeScaling | None = None


class Positions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a layer's attention knows where tokens are, and how many of the last ones it sees (None: all)."""

    rotary: Rotary | None = None
    window: int | None = None


class ModelArch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A decoder-only transformer. What is not said is as in Llama: RMSNorm before each half, gated MLP, no biases.

    Widths count values, `context` counts tokens. Attention projections are
    `heads * head_dim` (query) and `kv_heads * head_dim` (key, value) wide.

    norm            "rms" or "layer" (mean subtracted), with `norm_eps` and, if `norm_bias`, a bias
    norms           "pre": before attention and MLP; "post": after each, before it is added (OLMo 2);
                    "sandwich": both (Gemma 2)
    block           "sequential": the MLP reads what attention wrote; "parallel": both read the same input, from one
                    norm if `shared_norm`; "opaque": the graph was made by another exporter, only sizes are facts
    gated           the MLP is down(activation(gate) * up), else down(activation(up))
    qk_norm         queries and keys are normalised: "head" one gain for all heads, "each" one for each head,
                    "width" over all heads together
    rotary, window  of every layer but those in `local_layers`, which follow `local`
    alibi_scale     attention with linear biases (Press et al. 2022), slopes times this; with `alibi_bfloat16`, slopes,
                    positions and products were rounded to bfloat16 first (Falcon)
    softcap         attention scores become softcap * tanh(score / softcap); `logit_softcap` likewise for logits
    attention_scale what scores are multiplied by; None: 1 / sqrt(head_dim)
    rotated         a matrix turns the embedded tokens, and another turns the stream back before the last norm
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
    rotary: Rotary | None
    activation: Activation
    tied: bool
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    norms: Literal["pre", "post", "sandwich"] = "pre"
    block: Literal["sequential", "parallel", "opaque"] = "sequential"
    shared_norm: bool = False
    gated: bool = True
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: Literal["head", "each", "width"] | None = None
    qk_norm_bias: bool = False
    window: int | None = None
    local: Positions | None = None
    local_layers: tuple[int, ...] = ()
    alibi_scale: float | None = None
    alibi_bfloat16: bool = False
    learned_positions: bool = False
    softcap: float | None = None
    attention_scale: float | None = None
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    rotated: bool = False
    weights: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for facts that cannot be true together."""
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context"):
            if not 0 < getattr(self, name) < MAX_DIMENSION:
                raise ValueError(f"{name} is {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key/value heads")
        for positions in filter(None, (self.everywhere, self.local)):
            rotary, window = positions.rotary, positions.window
            if rotary is not None and (not 0 < rotary.dim <= self.head_dim or rotary.dim % 2):
                raise ValueError(f"rotary.dim is {rotary.dim} and head_dim {self.head_dim}")
            if window is not None and not 0 < window < MAX_DIMENSION:
                raise ValueError(f"the attention window is {window}")
        if self.local_layers and (self.local is None or not all(0 <= i < self.layers for i in self.local_layers)):
            raise ValueError("local_layers names layers that are not there")
        if self.shared_norm and (self.block != "parallel" or self.norms != "pre"):
            raise ValueError("only a parallel block has a shared norm")
        if self.block == "parallel" and self.norms != "pre":
            raise ValueError("a parallel block is normalised before, not after")

    @property
    def everywhere(self) -> Positions:
        """Of the layers that are not local."""
        return Positions(rotary=self.rotary, window=self.window)

    def positions(self, layer: int) -> Positions:
        """Of one layer."""
        return self.local if self.local is not None and layer in self.local_layers else self.everywhere

    @property
    def rotary_limit(self) -> int | None:
        """Tokens of the longest text in which longrope rotates as in short ones; None: the length does not matter."""
        scaling = None if self.rotary is None else self.rotary.scaling
        return scaling.original_context if scaling is not None and scaling.kind == "longrope" else None

    @property
    def kv_values_per_token(self) -> int:
        """Keys and values that one more token of context adds to the cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Number of weights in matrices and norms, a tied embedding counted once."""
        if self.weights:
            return self.weights
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + (3 if self.gated else 2) * self.hidden * self.intermediate + 2 * self.hidden
        tables = self.vocab * (1 if self.tied else 2) + (self.context if self.learned_positions else 0)
        return self.layers * layer + self.hidden + tables * self.hidden
