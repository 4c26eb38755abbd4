"""Tokenizers of the `tokenizers` library from tables of tokens: what GGUF, SentencePiece and older folders hold.

byte_level      bytes as printable characters, merged in a given order (GPT-2)
merged          characters, always the pair that makes the best-scored token (SentencePiece's BPE)
unigram         the most probable division into tokens (SentencePiece's unigram model)
word_pieces     the longest token that fits, word by word (BERT)
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from export.checkpoints.cuttings import Cutting

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes for a space."""


class Kind(IntEnum):
    """What a token is (SentencePiece's `ModelProto.SentencePiece.Type`, which GGUF took over)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Pieces:
    """Tokens by id, their kinds (numbers of `Kind`) and scores (higher is better)."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]

    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: number for number, token in enumerate(self.tokens)}

    def has_bytes(self) -> bool:
        """Whether every byte has a token, so that nothing is unknown."""
        present = {token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind == Kind.BYTE}
        return all(f"<0x{byte:02X}>" in present for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaces:
    """What happens to text before it is divided.

    `prefix` puts a space before the text ("start"), before that and whatever follows a token that was looked up in
    the text ("every"), or nowhere. `merged` makes one space of several and none of those at the ends. `charsmap` is
    SentencePiece's compiled table of replacements.
    """

    prefix: Literal["none", "start", "every"] = "every"
    merged: bool = False
    charsmap: bytes = b""


def byte_level(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], cutting: Cutting, *, prefix_space: bool = False
) -> tokenizers.Tokenizer:
    """GPT-2's kind. `merges` come in order; every part and product is in `vocabulary`."""
    made = tokenizers.Tokenizer(
        models.BPE(vocab=dict(vocabulary), merges=list(merges), ignore_merges=cutting.whole_words)
    )
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if cutting.digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cutting.patterns]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=cutting.gpt2_words))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    return made


def merged(pieces: Pieces, spaces: Spaces) -> tokenizers.Tokenizer:
    """SentencePiece's BPE: of all neighbours, those are merged first whose union has the highest score."""
    unknown = next(
        (token for token, kind in zip(pieces.tokens, pieces.kinds, strict=True) if kind == Kind.UNKNOWN), None
    )
    made = tokenizers.Tokenizer(
        models.BPE(
            vocab=pieces.ids(),
            merges=_merges(pieces),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=pieces.has_bytes(),
        )
    )
    return _spaced(made, spaces)


def unigram(pieces: Pieces, spaces: Spaces, *, unknown: int) -> tokenizers.Tokenizer:
    """SentencePiece's unigram model. `unknown` is the id of what no token covers.

    The library looks for all of the vocabulary in a text, but control tokens are not for texts to turn into. They are
    priced out: spelling one out is always cheaper. Only the unknown costs still more (10 more than the lowest score of
    all), so a control token with a character that has no token of its own is cut in two before it is looked for.
    """
    plain = {token for token, kind in zip(pieces.tokens, pieces.kinds, strict=True) if kind == Kind.NORMAL}
    lowest = min(
        (score for score, kind in zip(pieces.scores, pieces.kinds, strict=True) if kind == Kind.NORMAL), default=0
    )
    scores: list[tuple[str, float]] = []
    apart: list[str] = []
    for token, kind, score in zip(pieces.tokens, pieces.kinds, pieces.scores, strict=True):
        if kind in (Kind.CONTROL, Kind.UNKNOWN, Kind.BYTE):
            spelled = set(token) <= plain
            scores.append((token, lowest * (len(token) + 1) if spelled else lowest))
            apart += [] if spelled or len(token) < 2 else [f"{re.escape(token[0])}(?={re.escape(token[1:])})"]
        else:
            scores.append((token, 0.0 if kind == Kind.USER_DEFINED else score))
    made = _spaced(tokenizers.Tokenizer(models.Unigram(scores, unknown, byte_fallback=pieces.has_bytes())), spaces)
    if apart:
        cut = pre_tokenizers.Split(Regex("|".join(apart)), "isolated")
        made.pre_tokenizer = cut if made.pre_tokenizer is None else pre_tokenizers.Sequence([made.pre_tokenizer, cut])
    return made


def word_pieces(
    vocabulary: Mapping[str, int], *, unknown: str, lowercase: bool, strip_accents: bool, split_chinese: bool = True
) -> tokenizers.Tokenizer:
    """BERT's kind: continuations begin with `##`."""
    made = tokenizers.Tokenizer(models.WordPiece(dict(vocabulary), unk_token=unknown, max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    return made


def add_looked_up(tokenizer: tokenizers.Tokenizer, pieces: Pieces, *, rstrip: Sequence[str] = ()) -> None:
    """Have the library look for control, unknown and user-defined tokens in the text before it is divided.

    Control and unknown ones only as long as its `encode_special_tokens` is off. Those in `rstrip` swallow the white
    space after them.
    """
    kinds = {Kind.CONTROL: True, Kind.UNKNOWN: True, Kind.USER_DEFINED: False}
    found = [
        tokenizers.AddedToken(token, special=kinds[Kind(kind)], normalized=False, rstrip=token in rstrip)
        for token, kind in zip(pieces.tokens, pieces.kinds, strict=True)
        if kind in kinds and token
    ]
    tokenizer.add_special_tokens([token for token in found if token.special])
    tokenizer.add_tokens([token for token in found if not token.special])


def add_around(tokenizer: tokenizers.Tokenizer, vocabulary: Sequence[str], first: int | None, last: int | None) -> None:
    """Put tokens before and after a text that is encoded "with special tokens"."""
    before = [] if first is None else [vocabulary[first]]
    after = [] if last is None else [vocabulary[last]]
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, "$B:1", *(f"{token}:1" for token in after)],
            special_tokens=[(vocabulary[found], found) for found in (first, last) if found is not None],
        )


def _merges(pieces: Pieces) -> list[tuple[str, str]]:
    """All ways to make a token of two, in the order in which they are tried.

    Of ways to the same token the one with the longer left part comes first: SentencePiece takes the leftmost pair.
    """
    whole = {token for token, kind in zip(pieces.tokens, pieces.kinds, strict=True) if kind == Kind.NORMAL}
    found: list[tuple[float, int, str, str]] = []
    for token, kind, score in zip(pieces.tokens, pieces.kinds, pieces.scores, strict=True):
        if kind != Kind.NORMAL:
            continue
        for cut in range(len(token) - 1, 0, -1):
            if token[:cut] in whole and token[cut:] in whole:
                found.append((-score, len(found), token[:cut], token[cut:]))
    return [(left, right) for _, _, left, right in sorted(found)]


def _spaced(tokenizer: tokenizers.Tokenizer, spaces: Spaces) -> tokenizers.Tokenizer:
    steps: list[normalizers.Normalizer] = []
    if spaces.charsmap:
        steps.append(normalizers.Precompiled(spaces.charsmap))
    if spaces.merged:
        # Metaspace knows a text's start by its offset, so what stands there must stay; a space is as good as a prefix.
        last = rf"[ {SPACE}]+\z"
        ends = last if spaces.prefix == "start" else rf"\A +|{last}"
        steps += [normalizers.Replace(Regex(ends), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spaces.prefix == "every":
        steps.append(normalizers.Prepend(SPACE))
    if spaces.prefix == "start":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
    else:
        steps.append(normalizers.Replace(" ", SPACE))
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    written: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spaces.prefix != "none":
        written.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(written)
    return tokenizer
