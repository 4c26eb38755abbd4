"""Tokenizer files of a Hugging Face folder."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import tokenizers

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from edgekit.manifest import TokenId
from export.checkpoints import hf_tokenizer
from export.checkpoints.extents import read_json_object, read_small_file
from export.checkpoints.records import TextFiles

MAX_TOKENIZER_BYTES = 256 << 20
MAX_SETTINGS_BYTES = 64 << 20
MAX_TEMPLATE_BYTES = 1 << 20


def read_text(folder: Path, config: Mapping[str, object]) -> TextFiles:
    """Tokenizer, chat template and special ids of a folder whose config.json is `config`.

    Raises UnsupportedCheckpoint without a tokenizer that is read or an end-of-text token, CorruptCheckpoint if a file
    is not what its name says.
    """
    settings = _optional(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        raw = read_small_file(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
        tokenizer = parse_tokenizer(raw, "tokenizer.json")
    else:
        tokenizer = hf_tokenizer.build(folder, settings)
        raw = tokenizer.to_str().encode()
    generation = _optional(folder / "generation_config.json")
    bos = _first(_ids(config, "bos_token_id"), _named(settings, "bos_token", tokenizer))
    eos = [*_ids(config, "eos_token_id"), *_ids(generation, "eos_token_id"), *_named(settings, "eos_token", tokenizer)]
    if not eos:
        raise UnsupportedCheckpoint("no file of it names an end-of-text token (eos_token_id), so answers would not end")
    added = tokenizer.encode("", add_special_tokens=True).ids
    return TextFiles(
        tokenizer_json=raw,
        tokenizer_config=settings,
        chat_template=_chat_template(folder, settings),
        bos_id=bos,
        eos_ids=tuple(dict.fromkeys(eos)),
        pad_id=_first(
            _ids(config, "pad_token_id"),
            _ids(generation, "pad_token_id"),
            _named(settings, "pad_token", tokenizer),
        ),
        add_bos=bos is not None and added[:1] == [bos],
    )


def parse_tokenizer(raw: bytes, file: str) -> tokenizers.Tokenizer:
    """A tokenizer.json as the device will read it. Raises CorruptCheckpoint."""
    try:
        return tokenizers.Tokenizer.from_str(raw.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise CorruptCheckpoint(f"the tokenizers library cannot read it: {error}"[:500], file) from error


def _optional(path: Path) -> dict[str, object]:
    return read_json_object(path, MAX_SETTINGS_BYTES) if path.is_file() else {}


def _ids(settings: Mapping[str, object], key: str) -> list[int]:
    """An id, a list of ids or nothing. Raises CorruptCheckpoint for anything else."""
    value = settings.get(key)
    try:
        found = msgspec.convert([] if value is None else value, TokenId | list[TokenId])
    except msgspec.ValidationError as error:
        raise CorruptCheckpoint(f"{key} is {value!r}, not a token id"[:500], "its configuration") from error
    return found if isinstance(found, list) else [found]


def _named(settings: Mapping[str, object], key: str, tokenizer: tokenizers.Tokenizer) -> list[int]:
    """Id of a token that tokenizer_config.json gives as text, or as a record with its text in `content`."""
    value = settings.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    found = tokenizer.token_to_id(text) if isinstance(text, str) else None
    return [] if found is None else [found]


def _first(*choices: Iterable[int]) -> int | None:
    return next((found for choice in choices for found in choice), None)


def _chat_template(folder: Path, settings: Mapping[str, object]) -> str | None:
    """chat_template.jinja, or what tokenizer_config.json or chat_template.json holds: a text, or named texts."""
    if (folder / "chat_template.jinja").is_file():
        raw = read_small_file(folder / "chat_template.jinja", MAX_TEMPLATE_BYTES)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptCheckpoint(f"it is not UTF-8: {error}", "chat_template.jinja") from error
    found = settings.get("chat_template") or _optional(folder / "chat_template.json").get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    if found is None or isinstance(found, str):
        return found
    raise CorruptCheckpoint("its chat_template is not a text", "tokenizer_config.json")
