"""tokenizer.json from the `tokenizer.*` metadata of a GGUF file, so that ids equal llama.cpp's.

The rules are those of llama.cpp's src/llama-vocab.cpp, by `tokenizer.ggml.model`: "gpt2" is byte-level BPE, "llama"
SentencePiece's BPE, "t5" its unigram model, "bert" WordPiece with words instead of continuations marked.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tokenizers
from numpy.typing import NDArray

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import charsmap
from export.checkpoints.cuttings import CUTTINGS
from export.checkpoints.gguf_header import Value
from export.checkpoints.pieces import (
    SPACE,
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
from export.checkpoints.records import TextFiles

END_OF_TURN = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<EOT>", "_<EOT>", "<end_of_utterance>", "</s>",
)  # fmt: skip
"""Tokens that end an answer wherever they exist, as llama.cpp has it: files often name only one of several."""

_SWALLOWING = ("phi-3", "phi3")
_NOT_SWALLOWING = ("<unk>", "<s>", "<|endoftext|>")
_ALWAYS_SWALLOWING = ("</s>",)
"""Phi-3's control tokens swallow the white space after them, which GGUF cannot say: llama.cpp goes by the name."""


def read_text(metadata: Mapping[str, Value], file: str) -> TextFiles:
    """Tokenizer, chat template and special ids.

    Raises UnsupportedCheckpoint for a tokenizer of a kind that is not built here, CorruptCheckpoint for one that
    contradicts itself.
    """
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str) or model not in _MODELS:
        raise UnsupportedCheckpoint(f"its tokenizer is of the kind {model!r}; read are {', '.join(_MODELS)}"[:300])
    vocabulary = _Vocabulary(metadata, file, _MODELS[model].ids)
    made = _MODELS[model].make(vocabulary)
    bos, pad, eos = vocabulary.id("bos"), vocabulary.id("padding"), vocabulary.end_ids()
    if not eos:
        raise UnsupportedCheckpoint(f"{file} names no end-of-text token, so answers would not end")
    add_bos = bos is not None and vocabulary.flag("add_bos_token", default=made.add_bos)
    add_around(made.tokenizer, vocabulary.pieces.tokens, bos if add_bos else None, made.last)
    pieces = vocabulary.with_control((*eos, *([] if bos is None else [bos])))
    add_looked_up(made.tokenizer, pieces, rstrip=_swallowing(metadata, pieces))
    settings: dict[str, object] = {
        "tokenizer_class": made.tokenizer_class,
        "add_bos_token": add_bos,
        "add_prefix_space": made.prefix_space,
        "clean_up_tokenization_spaces": False,
    }
    named = {"bos_token": bos, "eos_token": eos[0], "pad_token": pad, "unk_token": vocabulary.id("unknown")}
    template = metadata.get("tokenizer.chat_template")
    return TextFiles(
        tokenizer_json=made.tokenizer.to_str().encode(),
        tokenizer_config=settings
        | {key: vocabulary.pieces.tokens[found] for key, found in named.items() if found is not None},
        chat_template=template if isinstance(template, str) else None,
        bos_id=bos,
        eos_ids=eos,
        pad_id=pad,
        add_bos=add_bos,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A tokenizer; `add_bos` holds where the file does not say, `last` is the id that it puts behind a text."""

    tokenizer: tokenizers.Tokenizer
    tokenizer_class: str
    add_bos: bool
    prefix_space: bool = False
    last: int | None = None


class _Vocabulary:
    """Tokens and what is said of them, checked. `usual` are the ids of special tokens where the file does not say."""

    def __init__(self, metadata: Mapping[str, Value], file: str, usual: Mapping[str, int]) -> None:
        self._metadata = metadata
        self._file = file
        self._usual = usual
        tokens = self.texts("tokens")
        self.ids = {token: number for number, token in enumerate(tokens)}
        if len(self.ids) != len(tokens):
            raise self.corrupt("two of its tokens are the same")
        kinds = self._numbers("token_type", "iu", len(tokens))
        scores = self._numbers("scores", "f", len(tokens))
        if scores is not None and not np.isfinite(scores).all():
            raise self.corrupt("the score of a token is not a number")
        self.pieces = Pieces(
            tokens,
            [int(Kind.NORMAL)] * len(tokens) if kinds is None else [int(kind) for kind in kinds],
            [0.0] * len(tokens) if scores is None else [float(score) for score in scores],
        )

    def texts(self, name: str) -> list[str]:
        """A list of texts that must be there."""
        found = self._metadata.get(f"tokenizer.ggml.{name}")
        if not isinstance(found, list) or not found:
            raise self.corrupt(f"it has no tokenizer.ggml.{name}")
        return found

    def flag(self, name: str, *, default: bool) -> bool:
        """A truth value."""
        return self._metadata.get(f"tokenizer.ggml.{name}", default) is True

    def word(self, name: str, default: str) -> object:
        """A value that should be a text."""
        return self._metadata.get(f"tokenizer.ggml.{name}", default)

    def raw_bytes(self, name: str) -> bytes:
        """An array of bytes; empty if absent."""
        found = self._metadata.get(f"tokenizer.ggml.{name}")
        if found is None:
            return b""
        if not isinstance(found, np.ndarray) or found.dtype.itemsize != 1:
            raise self.corrupt(f"its tokenizer.ggml.{name} is not an array of bytes")
        return found.tobytes()

    def id(self, name: str) -> int | None:
        """The id at `tokenizer.ggml.<name>_token_id`."""
        found = self._metadata.get(f"tokenizer.ggml.{name}_token_id")
        if found is None:
            usual = self._usual.get(name)
            return usual if usual is not None and usual < len(self.pieces.tokens) else None
        if type(found) is not int or not 0 <= found < len(self.pieces.tokens):
            raise self.corrupt(f"its {name} token is {found!r}, and it has {len(self.pieces.tokens)} tokens"[:200])
        return found

    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: the named ones first, then well-known ones that are not plain text here."""
        named = [self.id(name) for name in ("eos", "eot", "eom")]
        known = [self.ids[token] for token in END_OF_TURN if token in self.ids]
        special = [found for found in known if self.pieces.kinds[found] in (Kind.CONTROL, Kind.USER_DEFINED)]
        return tuple(dict.fromkeys([found for found in named if found is not None] + special))

    def with_control(self, ids: Iterable[int]) -> Pieces:
        """The pieces, with `ids` as control tokens whatever the file calls them: no text may turn into those."""
        kinds = list(self.pieces.kinds)
        for number in ids:
            kinds[number] = Kind.CONTROL
        return replace(self.pieces, kinds=kinds)

    def corrupt(self, problem: str) -> CorruptCheckpoint:
        """The error for a vocabulary that cannot be."""
        return CorruptCheckpoint(problem, self._file)

    def _numbers(self, name: str, dtypes: str, count: int) -> NDArray[np.float64] | None:
        found = self._metadata.get(f"tokenizer.ggml.{name}")
        if found is None:
            return None
        if not isinstance(found, np.ndarray) or found.shape != (count,) or found.dtype.kind not in dtypes:
            raise self.corrupt(f"its tokens and their {name} differ in number or are of another type")
        return found.astype(np.float64)


def _gpt2(vocabulary: _Vocabulary) -> _Made:
    name = vocabulary.word("pre", "default")
    if not isinstance(name, str) or name not in CUTTINGS:
        raise UnsupportedCheckpoint(f"its tokenizer cuts text as {name!r}; known: {', '.join(sorted(CUTTINGS))}"[:800])
    cutting, ids, merges = CUTTINGS[name], vocabulary.ids, []
    for merge in vocabulary.texts("merges"):
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids or left + right not in ids:
            raise vocabulary.corrupt(f"it merges {merge!r}, but not all of that are tokens"[:200])
        merges.append((left, right))
    return _Made(
        tokenizer=byte_level(ids, merges, cutting),
        tokenizer_class=cutting.tokenizer_class,
        add_bos=cutting.add_bos,
    )


def _llama(vocabulary: _Vocabulary) -> _Made:
    prefix = vocabulary.flag("add_space_prefix", default=True)
    return _Made(
        tokenizer=merged(vocabulary.pieces, Spaces(prefix="every" if prefix else "none")),
        tokenizer_class="LlamaTokenizer",
        add_bos=True,
        prefix_space=prefix,
    )


def _t5(vocabulary: _Vocabulary) -> _Made:
    prefix = vocabulary.flag("add_space_prefix", default=True)
    replacements = vocabulary.raw_bytes("precompiled_charsmap")
    try:
        if replacements:
            charsmap.check(replacements)
    except ValueError as error:
        raise vocabulary.corrupt(str(error)) from error
    spaces = Spaces(
        prefix="every" if prefix else "none",
        merged=vocabulary.flag("remove_extra_whitespaces", default=False),
        charsmap=replacements,
    )
    unknown = vocabulary.id("unknown")
    if unknown is None:
        raise vocabulary.corrupt("it has no token for what it does not know")
    return _Made(
        tokenizer=unigram(vocabulary.pieces, spaces, unknown=unknown),
        tokenizer_class="T5Tokenizer",
        add_bos=False,
        prefix_space=prefix,
        last=vocabulary.id("eos") if vocabulary.flag("add_eos_token", default=True) else None,
    )


def _bert(vocabulary: _Vocabulary) -> _Made:
    """Undo what the converter did: there words begin with a space, here continuations begin with `##`."""
    unknown = vocabulary.id("unknown")
    if unknown is None:
        raise vocabulary.corrupt("it has no token for what it does not know")
    tokens = list(vocabulary.pieces.tokens)
    for number, (token, kind) in enumerate(zip(vocabulary.pieces.tokens, vocabulary.pieces.kinds, strict=True)):
        if token.startswith(SPACE):
            tokens[number] = token[1:]
        elif kind not in (Kind.CONTROL, Kind.UNKNOWN):
            tokens[number] = "##" + token
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise vocabulary.corrupt("two of its word pieces are the same")
    vocabulary.pieces = Pieces(tokens, vocabulary.pieces.kinds, vocabulary.pieces.scores)
    lowercase = vocabulary.flag("normalizer.lowercase", default=True)
    strip = vocabulary.flag("normalizer.strip_accents", default=lowercase)
    return _Made(
        tokenizer=word_pieces(ids, unknown=tokens[unknown], lowercase=lowercase, strip_accents=strip),
        tokenizer_class="BertTokenizer",
        add_bos=True,
        last=vocabulary.id("seperator"),
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """How a tokenizer is built, and the ids that its special tokens have where the file does not say."""

    make: Callable[[_Vocabulary], _Made]
    ids: Mapping[str, int]


_MODELS: Mapping[str, _Model] = {
    "gpt2": _Model(_gpt2, {}),
    "llama": _Model(_llama, {"bos": 1, "eos": 2, "unknown": 0}),
    "t5": _Model(_t5, {"eos": 1, "unknown": 2, "padding": 0}),
    "bert": _Model(_bert, {"bos": 101, "eos": 102, "unknown": 100, "seperator": 102, "padding": 0}),
}
"""`tokenizer.ggml.model` -> how it is built ("seperator" is the format's own spelling)."""


def _swallowing(metadata: Mapping[str, Value], pieces: Pieces) -> tuple[str, ...]:
    name = metadata.get("general.name")
    if not isinstance(name, str) or not any(part in name.lower() for part in _SWALLOWING):
        return ()
    return tuple(
        token
        for token, kind in zip(pieces.tokens, pieces.kinds, strict=True)
        if (kind in (Kind.CONTROL, Kind.USER_DEFINED) or token in _ALWAYS_SWALLOWING) and token not in _NOT_SWALLOWING
    )
