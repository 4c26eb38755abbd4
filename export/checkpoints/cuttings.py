"""How byte-level BPE tokenizers cut text into words, by the name that GGUF has for it (`tokenizer.ggml.pre`).

The rules are those of llama.cpp's src/llama-vocab.cpp. Where Hugging Face's own file of the same model has an
equivalent step (single digits, the GPT-2 words), that step is written: other runtimes know those by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"


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


def _words(numbers: str) -> tuple[str, ...]:
    """The words of GPT-4 and its followers, which differ in how many digits stay together."""
    return (_CONTRACTIONS + rf"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|" + _SPACES,)


def _cased_words(ending: str, numbers: str) -> tuple[str, ...]:
    """Words that also end where capitals begin; `ending` may follow a word."""
    return (_CASED % (ending, ending) + rf"|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|" + _SPACES,)


_DEFAULT = Cutting(patterns=(r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"))
_GPT2 = Cutting(gpt2_words=True, tokenizer_class="GPT2Tokenizer")
_STARCODER = Cutting(digits=True, gpt2_words=True, tokenizer_class="GPT2Tokenizer")
_FALCON = Cutting(patterns=(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_WORDS, "[0-9][0-9][0-9]"))
_DBRX = Cutting(patterns=_words(r"\p{N}{1,3}"))
_LLAMA3 = replace(_DBRX, whole_words=True, add_bos=True)
_QWEN2 = Cutting(patterns=_words(r"\p{N}"), tokenizer_class="Qwen2Tokenizer")
_GPT4O = Cutting(patterns=_cased_words(_CONTRACTIONS + "?", r"\p{N}{1,3}"))
_TEKKEN = Cutting(patterns=_cased_words("", r"\p{N}"), whole_words=True, add_bos=True)
_DEEPSEEK_CODER = Cutting(patterns=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"))

CUTTINGS: Mapping[str, Cutting] = {
    "default": _DEFAULT,
    "gpt-2": _GPT2, "phi-2": _GPT2, "mpt": _GPT2, "olmo": _GPT2, "jais": _GPT2, "trillion": _GPT2,
    "granite-docling": _GPT2, "exaone4": _GPT2, "mellum": _GPT2, "gigachat": _GPT2,
    "smollm": _STARCODER, "starcoder": _STARCODER, "refact": _STARCODER, "command-r": _STARCODER,
    "codeshell": _STARCODER, "exaone": _STARCODER, "minerva-7b": _STARCODER,
    "falcon": _FALCON,
    "dbrx": _DBRX, "smaug-bpe": _DBRX,
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "falcon3": _LLAMA3, "pixtral": _LLAMA3,
    "qwen2": _QWEN2, "stablelm2": _QWEN2, "deepseek-r1-qwen": _QWEN2, "megrez": _QWEN2, "hunyuan": _QWEN2,
    "gpt-4o": _GPT4O,
    "tekken": _TEKKEN,
    "deepseek-coder": _DEEPSEEK_CODER,
}  # fmt: skip
"""`tokenizer.ggml.pre` -> how text is cut."""
