"""GGUF metadata to config.json, by the tables in `gguf_tables` and the rules in `gguf_rules`."""

from collections.abc import Callable

from edgekit.arch import MAX_DIMENSION
from edgekit.errors import CorruptCheckpoint, UnknownFamily, UnsupportedCheckpoint
from export.checkpoints.gguf_header import Header
from export.checkpoints.gguf_rules import RULES, Facts
from export.checkpoints.gguf_settings import Settings
from export.checkpoints.gguf_tables import ARCHITECTURES, FALCON_TWO_NORMS

_OUTPUT, _EMBEDDING = "output.weight", "token_embd.weight"


def facts_of(header: Header, file: str, vector: Callable[[str], tuple[float, ...]]) -> Facts:
    """The architecture's row and the sizes that everything depends on.

    Raises UnknownFamily, CorruptCheckpoint, or UnsupportedCheckpoint for files that are no whole language model.
    """
    metadata = header.metadata
    if metadata.get("general.type", "model") != "model":
        raise UnsupportedCheckpoint(f"{file} is not a whole model but of the type {metadata['general.type']!r}")
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CorruptCheckpoint("it does not say its general.architecture", file)
    if name not in ARCHITECTURES:
        raise UnknownFamily(name[:100], ", ".join(sorted(ARCHITECTURES)))
    row = ARCHITECTURES[name]
    if name == "falcon" and "blk.0.attn_norm_2.weight" in header.tensors:
        row = FALCON_TWO_NORMS
    settings = Settings(metadata, name, file)
    hidden, heads = settings.required_count("embedding_length"), settings.required_count("attention.head_count")
    default = 1 if name == "falcon" else heads
    return Facts(
        row=row,
        settings=settings,
        layers=settings.required_count("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=settings.count("attention.head_count_kv", default) or default,
        head_dim=settings.count("attention.key_length", max(1, hidden // heads)) or 1,
        context=settings.required_count("context_length"),
        tensors=frozenset(header.tensors),
        vector=vector,
    )


def config_of(header: Header, facts: Facts, file: str) -> dict[str, object]:
    """What config.json would say.

    Raises CorruptCheckpoint for a missing or impossible value, UnsupportedCheckpoint for what the row cannot express.
    """
    row = facts.row
    config: dict[str, object] = dict(row.constants) | _renamed(facts)
    config |= {ours: facts.settings.flag(key, default=True) for key, ours in row.switches.items()}
    config |= {ours: tensor in header.tensors for ours, tensor in row.flags.items()}
    config["tie_word_embeddings"] = _OUTPUT not in header.tensors
    if "vocab_size" not in config:
        config["vocab_size"] = _vocabulary(header, file)
    for rule in row.rules:
        config |= RULES[rule](facts)
    _check_tokens(header, file)
    _refuse_others(facts)
    return config


def _renamed(facts: Facts) -> dict[str, object]:
    row, settings = facts.row, facts.settings
    # What transformers would take from elsewhere if it were absent is always said.
    usual: dict[str, object] = {
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "rope_theta": 10000.0,
    }
    found: dict[str, object] = {}
    for readers, names in ((settings.count, row.counts), (settings.number, row.numbers)):
        for key, ours in names.items():
            value = readers(key)
            if value is None and key not in row.optional:
                raise settings.missing(key)
            default = row.defaults.get(ours, usual.get(ours))
            if value is not None or default is not None or ours in row.defaults:
                found[ours] = default if value is None else value
    return {**{key: value for key, value in row.defaults.items() if key not in found}, **found}


def _vocabulary(header: Header, file: str) -> int:
    """Rows of the embedding, or if that is missing, tokens."""
    if _EMBEDDING in header.tensors:
        return header.tensors[_EMBEDDING].shape[0]
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not 0 < len(tokens) < MAX_DIMENSION:
        raise CorruptCheckpoint("it has neither a token embedding nor tokens", file)
    return len(tokens)


def _check_tokens(header: Header, file: str) -> None:
    tokens, embedding = header.metadata.get("tokenizer.ggml.tokens"), header.tensors.get(_EMBEDDING)
    if isinstance(tokens, list) and embedding is not None and len(tokens) > embedding.shape[0]:
        rows = embedding.shape[0]
        raise CorruptCheckpoint(f"its tokenizer has {len(tokens)} tokens, but its embedding has {rows} rows", file)


def _refuse_others(facts: Facts) -> None:
    """Raise UnsupportedCheckpoint for settings that change the result and have no place in the configuration."""
    settings, head_dim = facts.settings, facts.head_dim
    if settings.count("expert_count", 0, least=0):
        raise UnsupportedCheckpoint("it is a mixture of experts")
    if not settings.flag("attention.causal", default=True):
        raise UnsupportedCheckpoint("its attention is not causal: it is an encoder")
    fixed = {"attention.value_length": head_dim, "attention.key_length": head_dim}
    if "head_dim" not in facts.row.counts.values():
        fixed["attention.key_length"] = facts.hidden // facts.heads
    if "rope scaling" in facts.row.rules and "partial rotary" not in facts.row.rules:
        fixed["rope.dimension_count"] = head_dim
    if "windows" not in facts.row.rules:
        fixed["attention.sliding_window"] = 0
    for key, value in fixed.items():
        found = settings.count(key, value, least=0)
        if found != value:
            raise UnsupportedCheckpoint(f"its {key} is {found}, where this architecture has {value}")
