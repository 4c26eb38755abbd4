"""Tokenizers of folders without a tokenizer.json: SentencePiece models, and the tables of GPT-2's and BERT's kind.

What is built equals what transformers' own conversion (convert_slow_tokenizer.py) makes of the same files, as far
as tokenizer_config.json says.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import msgspec
import tokenizers
from tokenizers import normalizers

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.cuttings import CUTTINGS
from export.checkpoints.extents import read_json_object, read_small_file
from export.checkpoints.pieces import (
    Kind,
    Pieces,
    Spaces,
    add_around,
    add_looked_up,
    byte_level,
    merged,
    unigram,
    word_pieces,
)
from export.checkpoints.sentencepiece_file import parse_model

MAX_BYTES = 64 << 20
MAX_TOKENS = 1 << 22
TO_TOKENIZER_JSON = (
    "the folder has no tokenizer.json. Make one with transformers: "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
)
"""What to do about a tokenizer that is not built here."""

_CUTTING_OF: Mapping[str, str] = {
    "GPT2Tokenizer": "gpt-2",
    "GPTNeoXTokenizer": "gpt-2",
    "CodeGenTokenizer": "gpt-2",
    "Qwen2Tokenizer": "qwen2",
}
"""transformers' class -> how it cuts text. Others of the kind have their rules in code."""

Settings = Mapping[str, object]


class _Added(msgspec.Struct, frozen=True):
    """An entry of `added_tokens_decoder`."""

    content: str
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def build(folder: Path, settings: Settings) -> tokenizers.Tokenizer:
    """The tokenizer of a folder; `settings` is its tokenizer_config.json.

    Raises UnsupportedCheckpoint if there is none that is read here, CorruptCheckpoint for a damaged one.
    """
    if (folder / "tokenizer.model").is_file():
        made = _sentencepiece(folder / "tokenizer.model", settings)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        made = _gpt2(folder, settings)
    elif (folder / "vocab.txt").is_file():
        made = _bert(folder / "vocab.txt", settings)
    else:
        raise UnsupportedCheckpoint(TO_TOKENIZER_JSON)
    _add_tokens(made, folder, settings)
    return made


def _sentencepiece(path: Path, settings: Settings) -> tokenizers.Tokenizer:
    model = parse_model(read_small_file(path, MAX_BYTES), path.name)
    # Llama's tokenizers until 2023 began anew after every token that was looked up, and still do unless they say so.
    start = settings.get("legacy") is False
    prefixed = settings.get("add_prefix_space", model.prefix_space) is not False
    prefix = "none" if not prefixed else "start" if start else "every"
    spaces = Spaces(prefix=prefix, merged=model.merge_spaces, charsmap=model.charsmap)  # type: ignore[arg-type]
    made = unigram(model.pieces, spaces, unknown=model.unknown) if model.unigram else merged(model.pieces, spaces)
    add_looked_up(made, model.pieces)
    bos = made.token_to_id(_named(settings, "bos_token", "<s>"))
    eos = made.token_to_id(_named(settings, "eos_token", "</s>"))
    first = bos if settings.get("add_bos_token", not model.unigram) is True else None
    last = eos if settings.get("add_eos_token", model.unigram) is True else None
    add_around(made, model.pieces.tokens, first, last)
    return made


def _gpt2(folder: Path, settings: Settings) -> tokenizers.Tokenizer:
    name = str(settings.get("tokenizer_class", "GPT2Tokenizer")).removesuffix("Fast")
    if name not in _CUTTING_OF:
        raise UnsupportedCheckpoint(f"its tokenizer is a {name}, and {TO_TOKENIZER_JSON}"[:500])
    vocabulary = _vocabulary(read_json_object(folder / "vocab.json", MAX_BYTES), "vocab.json")
    merges: list[tuple[str, str]] = []
    for line in _lines(folder / "merges.txt"):
        left, _, right = line.partition(" ")
        if not line or (line.startswith("#version") and not merges):
            continue
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise CorruptCheckpoint(f"it merges {line!r}, but not all of that are tokens"[:200], "merges.txt")
        merges.append((left, right))
    prefix_space = settings.get("add_prefix_space") is True
    made = byte_level(vocabulary, merges, CUTTINGS[_CUTTING_OF[name]], prefix_space=prefix_space)
    if name == "Qwen2Tokenizer":
        made.normalizer = normalizers.NFC()
    return made


def _bert(path: Path, settings: Settings) -> tokenizers.Tokenizer:
    tokens = _lines(path)
    while tokens and not tokens[-1]:
        tokens.pop()
    vocabulary = _vocabulary({token: number for number, token in enumerate(tokens)}, path.name)
    if len(vocabulary) != len(tokens):
        raise CorruptCheckpoint("two of its tokens are the same", path.name)
    lowercase = settings.get("do_lower_case", True) is True
    strip = settings.get("strip_accents")
    unknown, first, last = (
        _named(settings, key, usual)
        for key, usual in (("unk_token", "[UNK]"), ("cls_token", "[CLS]"), ("sep_token", "[SEP]"))
    )
    if unknown not in vocabulary:
        raise CorruptCheckpoint(f"it has no token {unknown!r} for what it does not know", path.name)
    made = word_pieces(
        vocabulary,
        unknown=unknown,
        lowercase=lowercase,
        strip_accents=lowercase if strip is None else strip is True,
        split_chinese=settings.get("tokenize_chinese_chars", True) is True,
    )
    special = {
        unknown,
        first,
        last,
        *(_named(settings, key, f"[{key[:-6].upper()}]") for key in ("pad_token", "mask_token")),
    }
    kinds = [Kind.CONTROL if token in special else Kind.NORMAL for token in tokens]
    add_looked_up(made, Pieces(tokens, kinds, [0.0] * len(tokens)))
    add_around(made, tokens, vocabulary.get(first), vocabulary.get(last))
    return made


def _add_tokens(made: tokenizers.Tokenizer, folder: Path, settings: Settings) -> None:
    """Tokens that the configuration adds or describes anew, each at the id that it says."""
    try:
        added = msgspec.convert(settings.get("added_tokens_decoder", {}), dict[str, _Added], strict=False)
        by_id = {int(number): token for number, token in added.items()}
        if (folder / "added_tokens.json").is_file():
            plain = msgspec.convert(read_json_object(folder / "added_tokens.json", MAX_BYTES), dict[str, int])
            by_id = {number: _Added(text, normalized=False) for text, number in plain.items()} | by_id
    except (msgspec.ValidationError, ValueError) as error:
        raise CorruptCheckpoint(f"its added tokens are not a table: {error}", "tokenizer_config.json") from error
    size = made.get_vocab_size()
    ordered = sorted(by_id.items())
    for number, token in ordered:
        known = made.token_to_id(token.content)
        if known not in (None, number) or (known is None and number != size):
            raise CorruptCheckpoint(
                f"it adds {token.content!r} as {number}, but its vocabulary says otherwise"[:300],
                "tokenizer_config.json",
            )
        size += known is None
    for special, run in itertools.groupby((token for _, token in ordered), lambda token: token.special):
        tokens = [
            tokenizers.AddedToken(
                token.content,
                special=token.special,
                normalized=token.normalized,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
            )
            for token in run
        ]
        (made.add_special_tokens if special else made.add_tokens)(tokens)


def _vocabulary(found: Mapping[str, object], file: str) -> dict[str, int]:
    try:
        vocabulary = msgspec.convert(found, dict[str, int])
    except msgspec.ValidationError as error:
        raise CorruptCheckpoint(f"it is not a table of tokens and ids: {error}", file) from error
    if not vocabulary or len(vocabulary) > MAX_TOKENS or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise CorruptCheckpoint(f"the ids of its {len(vocabulary)} tokens do not count from 0", file)
    return vocabulary


def _lines(path: Path) -> list[str]:
    try:
        return read_small_file(path, MAX_BYTES).decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint(f"it is not UTF-8: {error}", path.name) from error


def _named(settings: Settings, key: str, usual: str) -> str:
    """A token that tokenizer_config.json gives as text, or as a record with its text in `content`."""
    value = settings.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else usual
