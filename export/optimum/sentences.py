"""What a sentence-transformers folder says: how the states of a text's tokens become its vector.

Format: sentence-transformers' `modules.json` (a list of modules with a type and a folder each), the
`config.json` of its Pooling module, and `sentence_bert_config.json`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from edgekit.manifest import is_safe_path
from export.checkpoints import TextFiles, hf_tokenizer
from export.checkpoints.extents import read_json_object, read_small_file
from export.checkpoints.hf_text import MAX_TOKENIZER_BYTES, parse_tokenizer

MODULES_FILE = "modules.json"
_MAX_BYTES = 1 << 20

Pooling = Literal["mean", "cls", "last"]
_POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_MAX_TOKENS_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")


class _Module(msgspec.Struct):
    type: str
    path: str = ""


@dataclass(frozen=True)
class Recipe:
    """How vectors come about; `max_tokens` is what the model was trained for, or can take."""

    pooling: Pooling
    normalise: bool
    max_tokens: int


def is_sentence_model(folder: Path) -> bool:
    """Whether the folder is one of sentence-transformers."""
    return (folder / MODULES_FILE).is_file()


def read_recipe(folder: Path, config: Mapping[str, object]) -> Recipe:
    """Read the folder's modules. Raises CorruptCheckpoint, or UnsupportedCheckpoint for what would be left out."""
    modules = _modules(folder)
    kinds = [module.type.rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedCheckpoint(
            f"its {MODULES_FILE} lists {', '.join(kinds) or 'nothing'}; Transformer, Pooling and Normalize are known"
        )
    if modules[0].path:
        raise UnsupportedCheckpoint(f"its {MODULES_FILE} has the transformer in {modules[0].path!r}, not beside itself")
    _refuse_prompts(folder)
    pooling_file = folder / modules[1].path / "config.json"
    if not pooling_file.is_file():
        raise CorruptCheckpoint(f"the folder {modules[1].path!r} has no config.json", MODULES_FILE)
    return Recipe(_pooling(read_json_object(pooling_file, _MAX_BYTES)), len(kinds) == 3, _max_tokens(folder, config))


def read_text(folder: Path) -> TextFiles:
    """The folder's tokenizer. Raises UnsupportedCheckpoint without one that is read, or CorruptCheckpoint."""
    settings = _optional(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        raw = read_small_file(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
    else:
        raw = hf_tokenizer.build(folder, settings).to_str().encode()
    parse_tokenizer(raw, "tokenizer.json")
    return TextFiles(
        tokenizer_json=raw,
        tokenizer_config=settings,
        chat_template=None,
        bos_id=None,
        eos_ids=(),
        pad_id=None,
        add_bos=False,
    )


def tokenizer_of(text: TextFiles, recipe: Recipe) -> Callable[[str], list[int]]:
    """What turns a text into ids as sentence-transformers does: special tokens around it, cut where it is too long."""
    tokenizer = parse_tokenizer(text.tokenizer_json, "tokenizer.json")
    tokenizer.no_padding()  # the file may ask for lengths of its own
    tokenizer.enable_truncation(recipe.max_tokens)

    def tokenize(content: str) -> list[int]:
        return list(tokenizer.encode(content, add_special_tokens=True).ids)

    return tokenize


def _modules(folder: Path) -> list[_Module]:
    try:
        modules = msgspec.json.decode(read_small_file(folder / MODULES_FILE, _MAX_BYTES), type=list[_Module])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptCheckpoint(f"it is not a list of modules: {error}", MODULES_FILE) from error
    for module in modules:
        if module.path and not is_safe_path(module.path):
            raise CorruptCheckpoint(f"it names {module.path!r}, which is not a folder inside this one", MODULES_FILE)
    return modules


def _pooling(settings: Mapping[str, object]) -> Pooling:
    chosen = sorted(key for key, value in settings.items() if key.startswith("pooling_mode_") and value)
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise UnsupportedCheckpoint(
            f"it pools by {' and '.join(chosen) or 'nothing'}; one of {', '.join(_POOLINGS)} is known"
        )
    return _POOLINGS[chosen[0]]


def _refuse_prompts(folder: Path) -> None:
    """Settings that change every text before the tokenizer sees it."""
    settings = _optional(folder / "config_sentence_transformers.json")
    if settings.get("default_prompt_name"):
        raise UnsupportedCheckpoint("it puts a prompt before every text (default_prompt_name)")
    if _optional(folder / "sentence_bert_config.json").get("do_lower_case"):
        raise UnsupportedCheckpoint(
            "it lowers texts outside of its tokenizer (do_lower_case in sentence_bert_config.json)"
        )


def _max_tokens(folder: Path, config: Mapping[str, object]) -> int:
    """The smallest limit that a file gives."""
    trained = _optional(folder / "sentence_bert_config.json").get("max_seq_length")
    tokenizer = _optional(folder / "tokenizer_config.json").get("model_max_length")
    limits = [trained, tokenizer, *(config.get(key) for key in _MAX_TOKENS_KEYS)]
    # A tokenizer without a limit says 10^30.
    numbers = [value for value in limits if isinstance(value, int) and not isinstance(value, bool) and value < 1 << 24]
    if not numbers or min(numbers) < 1:
        raise UnsupportedCheckpoint("no file of it says how many tokens a text may have")
    return min(numbers)


def _optional(path: Path) -> Mapping[str, object]:
    return read_json_object(path, _MAX_BYTES) if path.is_file() else {}
