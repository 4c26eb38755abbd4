"""tokenizer.json from the `tokenizer.*` metadata of a GGUF file, so that ids equal llama.cpp's.

The rules are those of llama.cpp's src/llama-vocab.cpp: no normalisation; text is cut by regular
expressions chosen by `tokenizer.ggml.pre`, mapped byte by byte to printable characters (GPT-2) and
merged. Where Hugging Face's own file of the same model has an equivalent step (single digits, the GPT-2
words), that step is written: other runtimes know those by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.gguf_header import Value
from export.checkpoints.records import TextFiles

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Token types (llama.cpp's `llama_token_type`) that are looked for in the text before it is cut."""

_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How text is cut into words: `patterns` in turn, each cutting what the one before left.

    `digits` first puts every digit by itself; `gpt2_words` cuts as GPT-2 did, last. `whole_words` takes a word that
    is a token as that token, whatever the merges say. `add_bos` holds where the file does not say.
    `tokenizer_class` is transformers' name for the like.
    """

    patterns: tuple[str, ...] = ()
    digits: bool = False
    gpt2_words: bool = False
    whole_words: bool = False
    add_bos: bool = False
    tokenizer_class: str = "PreTrainedTokenizerFast"


_DEFAULT = Cutting(patterns=(r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"))
_GPT2 = Cutting(gpt2_words=True, tokenizer_class="GPT2Tokenizer")
_STARCODER = Cutting(digits=True, gpt2_words=True, tokenizer_class="GPT2Tokenizer")
_LLAMA3 = Cutting(
    patterns=(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,),
    whole_words=True,
    add_bos=True,
)
_QWEN2 = Cutting(
    patterns=(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,),
    tokenizer_class="Qwen2Tokenizer",
)

CUTTINGS: Mapping[str, Cutting] = {
    "default": _DEFAULT,
    "gpt-2": _GPT2, "mpt": _GPT2, "olmo": _GPT2,
    "smollm": _STARCODER, "starcoder": _STARCODER, "refact": _STARCODER, "command-r": _STARCODER,
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "falcon3": _LLAMA3,
    "qwen2": _QWEN2, "stablelm2": _QWEN2,
}  # fmt: skip
"""`tokenizer.ggml.pre` -> how text is cut."""

END_OF_TURN = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<EOT>", "<end_of_utterance>",
)  # fmt: skip
"""Tokens that end an answer wherever they exist, as llama.cpp has it: files often name only one of several."""


def read_text(metadata: Mapping[str, Value], file: str) -> TextFiles:
    """Tokenizer, chat template and special ids.

    Raises UnsupportedCheckpoint for a tokenizer of a kind that is not built here, CorruptCheckpoint for one that
    contradicts itself.
    """
    vocabulary = _Vocabulary(metadata, file)
    cutting = _cutting(metadata)
    bos, pad, eos = vocabulary.id("bos"), vocabulary.id("padding"), vocabulary.end_ids()
    if not eos:
        raise UnsupportedCheckpoint(f"{file} names no end-of-text token, so answers would not end")
    add_bos = bos is not None and metadata.get("tokenizer.ggml.add_bos_token", cutting.add_bos) is True
    tokenizer = _build(vocabulary, cutting)
    if add_bos and bos is not None:
        token = vocabulary.tokens[bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[token, "$A"], pair=[token, "$A", "$B:1"], special_tokens=[(token, bos)]
        )
    settings: dict[str, object] = {
        "tokenizer_class": cutting.tokenizer_class,
        "add_bos_token": add_bos,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    named = {"bos_token": bos, "eos_token": eos[0], "pad_token": pad, "unk_token": vocabulary.id("unknown")}
    template = metadata.get("tokenizer.chat_template")
    return TextFiles(
        tokenizer_json=tokenizer.to_str().encode(),
        tokenizer_config=settings
        | {key: vocabulary.tokens[found] for key, found in named.items() if found is not None},
        chat_template=template if isinstance(template, str) else None,
        bos_id=bos,
        eos_ids=eos,
        pad_id=pad,
        add_bos=add_bos,
    )


def _cutting(metadata: Mapping[str, Value]) -> Cutting:
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise UnsupportedCheckpoint(f"its tokenizer is of the kind {model!r}; gpt2 (byte-level BPE) is read"[:300])
    name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in CUTTINGS:
        raise UnsupportedCheckpoint(f"its tokenizer cuts text as {name!r}; known: {', '.join(sorted(CUTTINGS))}"[:500])
    return CUTTINGS[name]


class _Vocabulary:
    """`tokens` by id, their types and merges, checked."""

    def __init__(self, metadata: Mapping[str, Value], file: str) -> None:
        self._metadata = metadata
        self._file = file
        self.tokens = self._texts("tokens")
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise self._corrupt("two of its tokens are the same")
        types = metadata.get("tokenizer.ggml.token_type")
        if types is None:
            types = np.ones(len(self.tokens), np.int32)
        if not isinstance(types, np.ndarray) or types.shape != (len(self.tokens),) or types.dtype.kind not in "iu":
            raise self._corrupt("its tokens and their types differ in number")
        self.types: list[int] = types.tolist()

    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens, the first to be merged first."""
        pairs = []
        for merge in self._texts("merges"):
            left, _, right = merge.partition(" ")
            if left not in self.ids or right not in self.ids or left + right not in self.ids:
                raise self._corrupt(f"it merges {merge!r}, but not all of that are tokens"[:200])
            pairs.append((left, right))
        return pairs

    def id(self, name: str) -> int | None:
        """The id at `tokenizer.ggml.<name>_token_id`."""
        found = self._metadata.get(f"tokenizer.ggml.{name}_token_id")
        if found is None:
            return None
        if type(found) is not int or not 0 <= found < len(self.tokens):
            raise self._corrupt(f"its {name} token is {found!r}, and it has {len(self.tokens)} tokens"[:200])
        return found

    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: the named ones first, then well-known ones that are not plain text here."""
        named = [self.id(name) for name in ("eos", "eot", "eom")]
        known = [self.ids[token] for token in END_OF_TURN if token in self.ids]
        special = [found for found in known if self.types[found] in (_CONTROL, _USER_DEFINED)]
        return tuple(dict.fromkeys([found for found in named if found is not None] + special))

    def _texts(self, name: str) -> list[str]:
        found = self._metadata.get(f"tokenizer.ggml.{name}")
        if not isinstance(found, list) or not found:
            raise self._corrupt(f"it has no tokenizer.ggml.{name}")
        return found

    def _corrupt(self, problem: str) -> CorruptCheckpoint:
        return CorruptCheckpoint(problem, self._file)


def _build(vocabulary: _Vocabulary, cutting: Cutting) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary.ids, merges=vocabulary.merges(), ignore_merges=cutting.whole_words)
    )
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if cutting.digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cutting.patterns]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cutting.gpt2_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    for number, kind in enumerate(vocabulary.types):
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED):
            special = kind != _USER_DEFINED
            token = tokenizers.AddedToken(vocabulary.tokens[number], special=special, normalized=False)
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])
    return tokenizer
