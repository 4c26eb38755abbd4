"""MODEL_CARD.md: what a person wants to know before running someone's model."""

from collections import Counter

from edgekit.manifest import Manifest

_CONTEXTS = (512, 2048, 8192, 32768, 131072)


def model_card(manifest: Manifest) -> str:
    """The card as Markdown."""
    arch, needs, quality = manifest.arch, manifest.requires, manifest.quality
    specs = Counter(manifest.quant.weights.values())
    stored = ", ".join(f"{count} x {name}" for name, count in specs.most_common())
    memory = "\n".join(
        f"| {tokens:,} | {(needs.weight_bytes + tokens * needs.kv_bytes_per_token) / 1e6:,.0f} MB |"
        for tokens in _CONTEXTS
        if tokens <= arch.context
    )
    return f"""# {manifest.name} {manifest.version}

| | |
|---|---|
| architecture | {arch.model_type}: {arch.layers} layers of width {arch.hidden} |
| attention | {arch.heads} heads over {arch.kv_heads} key/value heads of {arch.head_dim} |
| parameters | {arch.parameters / 1e6:,.1f} million |
| context | {arch.context:,} tokens |
| vocabulary | {arch.vocab:,} tokens |
| source | {manifest.source.kind} `{manifest.source.file}` |
| licence | {manifest.source.licence or "not stated by the source; ask its publisher"} |
| weights | {stored} ({manifest.quant.precision}, {manifest.quant.method}) |
| size | {needs.weight_bytes / 1e6:,.1f} MB of weights |

## Measured at export

Over {quality["tokens"]:.0f} tokens of English text, against the source's own weights in float:

| | |
|---|---|
| KL divergence | {quality["kl"]:.4f} nats |
| same most likely token | {quality["same_top_token"]:.1%} |
| largest difference from a numpy reference of these bytes | {quality["verification_error"]:.3%} of the largest logit |

## Memory: weights and cache by length of the conversation

| tokens | memory |
|---|---|
{memory}
"""
