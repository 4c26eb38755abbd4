"""MODEL_CARD.md: what a person wants to know before running someone's model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekit.manifest import Manifest
from export.quantize.plan import PlannedMatrix

_CONTEXTS = (512, 2048, 8192, 32768, 131072)

_QUALITY: Mapping[str, tuple[str, str]] = {
    "kl": ("KL divergence", "{:.4f} nats"),
    "same_top_token": ("same most likely token", "{:.1%}"),
    "prompt_kl": ("KL divergence after a prompt that was read in INT8, from one that was not", "{:.4f} nats"),
    "perplexity": ("perplexity", "{:.3f}"),
    "reference_perplexity": ("perplexity of the source", "{:.3f}"),
    "cosine": ("cosine between vectors", "{:.4f}"),
    "verification_error": (
        "largest difference from an independent computation of these bytes",
        "{:.3%} of the largest logit",
    ),
}
_SPEED: Mapping[str, tuple[str, str]] = {
    "load_s": ("loading", "{:.2f} s"),
    "prefill_tokens_per_s": ("reading a prompt", "{:,.0f} tokens/s"),
    "decode_tokens_per_s": ("writing an answer", "{:,.1f} tokens/s"),
    "time_to_first_token_s": ("first token after", "{:.2f} s"),
    "rss_bytes": ("memory in use", "{:,.0f} bytes"),
    "threads": ("threads", "{:.0f}"),
}
"""What `manifest.quality` may hold -> (what to call it, how to write it). What was not measured has no row."""


@dataclass(frozen=True)
class Stored:
    """Matrices that are stored alike: the name of their QuantSpec, where the codes come from, how many, how large."""

    spec: str
    method: str
    count: int
    bytes: int


def stored(matrices: Iterable[PlannedMatrix]) -> list[Stored]:
    """A plan's matrices by spec and method, the largest group first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for matrix in matrices:
        groups.setdefault((matrix.spec.name, matrix.method), []).append(matrix.bytes)
    found = [Stored(spec, method, len(sizes), sum(sizes)) for (spec, method), sizes in groups.items()]
    return sorted(found, key=lambda each: (-each.bytes, each.spec, each.method))


def model_card(manifest: Manifest, matrices: Iterable[PlannedMatrix]) -> str:
    """The card as Markdown; `matrices` are those of the plan by which the bundle was made."""
    arch, needs = manifest.arch, manifest.requires
    facts = [
        ("architecture", f"{arch.model_type}: {arch.layers} layers of width {arch.hidden}"),
        ("attention", f"{arch.heads} heads over {arch.kv_heads} key/value heads of {arch.head_dim}"),
        ("parameters", f"{arch.parameters / 1e6:,.1f} million"),
        ("context", f"{arch.context:,} tokens"),
        ("vocabulary", f"{arch.vocab:,} tokens"),
        ("source", f"{manifest.source.kind} `{manifest.source.file}`"),
        ("licence", manifest.source.licence or "not stated by the source; ask its publisher"),
        ("weights", f"{manifest.quant.precision}, {manifest.quant.method}"),
        *([] if manifest.embedding else [("cached keys and values", manifest.cache)]),
        ("size", f"{needs.weight_bytes / 1e6:,.1f} MB of weights"),
    ]
    sections = [
        f"# {manifest.name} {manifest.version}",
        _table([("", ""), *facts]),
        _measured(manifest),
        "## How the weights are stored",
        _table([("matrices", "codes", "size"), *map(_group, stored(matrices))]),
        _memory(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _measured(manifest: Manifest) -> str:
    quality = manifest.quality
    tokens = f"Over {quality['tokens']:.0f} tokens of text, against" if "tokens" in quality else "Against"
    parts = []
    if rows := _rows(quality, _QUALITY):
        parts += ["## Measured at export", f"{tokens} the source's own weights in float:", _table([("", ""), *rows])]
    if rows := _rows(quality, _SPEED):
        parts += ["## Speed on the machine that made it", _table([("", ""), *rows])]
    return "\n\n".join(parts)


def _rows(quality: Mapping[str, float], known: Mapping[str, tuple[str, str]]) -> list[tuple[str, ...]]:
    return [(title, form.format(quality[name])) for name, (title, form) in known.items() if name in quality]


def _group(each: Stored) -> tuple[str, ...]:
    return f"{each.count} x {each.spec}", each.method, f"{each.bytes / 1e6:,.1f} MB"


def _memory(manifest: Manifest) -> str:
    needs = manifest.requires
    rows = [
        (f"{tokens:,}", f"{(needs.weight_bytes + tokens * needs.kv_bytes_per_token) / 1e6:,.0f} MB")
        for tokens in _CONTEXTS
        if tokens <= manifest.arch.context and needs.kv_bytes_per_token
    ]
    if not rows:
        return ""
    title = "## Memory: weights and cache by length of the conversation"
    return f"{title}\n\n{_table([('tokens', 'memory'), *rows])}"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    """Markdown; the first row is the head. Words of a checkpoint cannot break out of their cell."""
    head, *body = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
