"""Model families: what a configuration means, and the tensor names. One file each, all data.

`of` finds the family of a checkpoint; `Weights` (weights.py) reads a checkpoint's tensors by our names. Our names:

    embed.weight                         [vocab, hidden]
    positions.weight                     [context, hidden]  learned positions
    layers.{i}.attention_norm.weight     [hidden]           before attention (and, if shared, before the MLP)
    layers.{i}.q|k|v.weight              [heads * head_dim, hidden]
    layers.{i}.q_norm|k_norm.weight      [head_dim], [heads, head_dim] or [heads * head_dim]
    layers.{i}.o.weight                  [hidden, heads * head_dim]
    layers.{i}.attention_post_norm.weight [hidden]          after attention
    layers.{i}.mlp_norm.weight           [hidden]           before the MLP
    layers.{i}.gate|up.weight            [intermediate, hidden]
    layers.{i}.down.weight               [hidden, intermediate]
    layers.{i}.mlp_post_norm.weight      [hidden]           after the MLP
    norm.weight                          [hidden]           after the last layer
    lm_head.weight                       [vocab, hidden]    absent if tied to the embedding

and `.bias` beside `.weight` where the architecture has one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edgekit.arch import ModelArch
from edgekit.errors import UnknownFamily, UnsupportedCheckpoint
from export.checkpoints import Checkpoint
from export.families import (
    cohere,
    cohere2,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gemma3_text,
    gpt2,
    gpt_neox,
    granite,
    jais,
    llama,
    mistral,
    nemotron,
    olmo,
    olmo2,
    phi,
    phi3,
    qwen2,
    qwen3,
    smollm3,
    stablelm,
    starcoder2,
)
from export.families.config import Config
from export.families.parts import Tensors


@dataclass(frozen=True)
class Family:
    """`names` is what users call these models; `checked` is how we know that they work.

    `tensors` maps our names to theirs, for a given architecture; `ignored` are known and not needed. A name may have
    one of `prefixes` before it.
    """

    model_type: str
    names: tuple[str, ...]
    checked: str
    arch: Callable[[Config], ModelArch]
    tensors: Tensors
    ignored: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ("",)


FAMILIES: Mapping[str, Family] = {
    "cohere": Family("cohere", cohere.NAMES, cohere.CHECKED, cohere.arch, cohere.TENSORS, cohere.IGNORED),
    "cohere2": Family("cohere2", cohere2.NAMES, cohere2.CHECKED, cohere2.arch, cohere2.TENSORS, cohere2.IGNORED),
    "falcon": Family("falcon", falcon.NAMES, falcon.CHECKED, falcon.arch, falcon.TENSORS, falcon.IGNORED),
    "gemma": Family("gemma", gemma.NAMES, gemma.CHECKED, gemma.arch, gemma.TENSORS, gemma.IGNORED),
    "gemma2": Family("gemma2", gemma2.NAMES, gemma2.CHECKED, gemma2.arch, gemma2.TENSORS, gemma2.IGNORED),
    "gemma3": Family(
        "gemma3", gemma3.NAMES, gemma3.CHECKED, gemma3.arch, gemma3.TENSORS, gemma3.IGNORED, gemma3.PREFIXES
    ),
    "gemma3_text": Family(
        "gemma3_text",
        gemma3_text.NAMES,
        gemma3_text.CHECKED,
        gemma3_text.arch,
        gemma3_text.TENSORS,
        gemma3_text.IGNORED,
    ),
    "gpt2": Family("gpt2", gpt2.NAMES, gpt2.CHECKED, gpt2.arch, gpt2.TENSORS, gpt2.IGNORED),
    "gpt_neox": Family("gpt_neox", gpt_neox.NAMES, gpt_neox.CHECKED, gpt_neox.arch, gpt_neox.TENSORS, gpt_neox.IGNORED),
    "granite": Family("granite", granite.NAMES, granite.CHECKED, granite.arch, granite.TENSORS, granite.IGNORED),
    "jais": Family("jais", jais.NAMES, jais.CHECKED, jais.arch, jais.TENSORS, jais.IGNORED),
    "llama": Family("llama", llama.NAMES, llama.CHECKED, llama.arch, llama.TENSORS, llama.IGNORED),
    "mistral": Family("mistral", mistral.NAMES, mistral.CHECKED, mistral.arch, mistral.TENSORS, mistral.IGNORED),
    "nemotron": Family("nemotron", nemotron.NAMES, nemotron.CHECKED, nemotron.arch, nemotron.TENSORS, nemotron.IGNORED),
    "olmo": Family("olmo", olmo.NAMES, olmo.CHECKED, olmo.arch, olmo.TENSORS, olmo.IGNORED),
    "olmo2": Family("olmo2", olmo2.NAMES, olmo2.CHECKED, olmo2.arch, olmo2.TENSORS, olmo2.IGNORED),
    "phi": Family("phi", phi.NAMES, phi.CHECKED, phi.arch, phi.TENSORS, phi.IGNORED),
    "phi3": Family("phi3", phi3.NAMES, phi3.CHECKED, phi3.arch, phi3.TENSORS, phi3.IGNORED),
    "qwen2": Family("qwen2", qwen2.NAMES, qwen2.CHECKED, qwen2.arch, qwen2.TENSORS, qwen2.IGNORED),
    "qwen3": Family("qwen3", qwen3.NAMES, qwen3.CHECKED, qwen3.arch, qwen3.TENSORS, qwen3.IGNORED),
    "smollm3": Family("smollm3", smollm3.NAMES, smollm3.CHECKED, smollm3.arch, smollm3.TENSORS, smollm3.IGNORED),
    "stablelm": Family("stablelm", stablelm.NAMES, stablelm.CHECKED, stablelm.arch, stablelm.TENSORS, stablelm.IGNORED),
    "starcoder2": Family(
        "starcoder2", starcoder2.NAMES, starcoder2.CHECKED, starcoder2.arch, starcoder2.TENSORS, starcoder2.IGNORED
    ),
}


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Of Mixtral, Phi-MoE, Granite MoE; of Qwen MoE, OLMoE; of DeepSeek; of DBRX and Ernie."""


HEAD_MULTIPLE = 8
"""GroupQueryAttention (onnxruntime 1.32) refuses other head widths when it runs."""


def of(config: Mapping[str, object]) -> Family:
    """The family of `config["model_type"]`.

    Raises UnknownFamily, which names those we know, or UnsupportedCheckpoint for a mixture of experts.
    """
    model_type = config.get("model_type")
    for key in _EXPERTS:
        experts = config.get(key)
        if isinstance(experts, int) and experts > 1:
            raise UnsupportedCheckpoint(f"it is a mixture of experts ({key} is {experts})")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnknownFamily(str(model_type), ", ".join(sorted(FAMILIES)))
    return FAMILIES[model_type]


def arch_of(checkpoint: Checkpoint) -> ModelArch:
    """The facts of a checkpoint. Raises UnknownFamily or UnsupportedCheckpoint (a setting we cannot carry)."""
    family = of(checkpoint.config)
    try:
        arch = family.arch(Config(checkpoint.config))
    except ValueError as error:
        raise UnsupportedCheckpoint(f"its configuration contradicts itself: {error}") from error
    if arch.head_dim % HEAD_MULTIPLE:
        raise UnsupportedCheckpoint(
            f"its attention heads are {arch.head_dim} values wide, and the attention kernel takes multiples of"
            f" {HEAD_MULTIPLE}"
        )
    return arch


def shapes(arch: ModelArch) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor that the architecture has, by our name: one by one, since a configuration may claim any number."""
    yield "embed.weight", (arch.vocab, arch.hidden)
    if arch.learned_positions:
        yield "positions.weight", (arch.context, arch.hidden)
    yield from _norm(arch, "norm")
    if not arch.tied:
        yield "lm_head.weight", (arch.vocab, arch.hidden)
    if arch.head_bias:
        yield "lm_head.bias", (arch.vocab,)
    for i in range(arch.layers):
        yield from _layer_shapes(arch, f"layers.{i}")


def _layer_shapes(arch: ModelArch, at: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    linears = {
        "q": (query, arch.hidden, arch.attention_bias),
        "k": (key, arch.hidden, arch.attention_bias),
        "v": (key, arch.hidden, arch.attention_bias),
        "o": (arch.hidden, query, arch.output_bias),
        "gate": (arch.intermediate, arch.hidden, arch.mlp_bias),
        "up": (arch.intermediate, arch.hidden, arch.mlp_bias),
        "down": (arch.hidden, arch.intermediate, arch.mlp_bias),
    }
    for name, (rows, columns, bias) in linears.items():
        if name == "gate" and not arch.gated:
            continue
        yield f"{at}.{name}.weight", (rows, columns)
        if bias:
            yield f"{at}.{name}.bias", (rows,)
    for name in layer_norms(arch):
        yield from _norm(arch, f"{at}.{name}")
    if arch.qk_norm is not None:
        for name, heads in (("q_norm", arch.heads), ("k_norm", arch.kv_heads)):
            size = {"head": (arch.head_dim,), "each": (heads, arch.head_dim), "width": (heads * arch.head_dim,)}
            yield f"{at}.{name}.weight", size[arch.qk_norm]
            if arch.qk_norm_bias:
                yield f"{at}.{name}.bias", size[arch.qk_norm]


def layer_norms(arch: ModelArch) -> tuple[str, ...]:
    """The norms of each layer."""
    before = ("attention_norm",) if arch.shared_norm else ("attention_norm", "mlp_norm")
    after = ("attention_post_norm", "mlp_post_norm")
    return {"pre": before, "post": after, "sandwich": before + after}[arch.norms]


def _norm(arch: ModelArch, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (arch.hidden,)
    if arch.norm_bias:
        yield f"{name}.bias", (arch.hidden,)
