"""Tokenizer files of a folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import CheckpointError, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import TextFiles, open_checkpoint
from tests import tiny


def text_of(folder: Path) -> TextFiles:
    with open_checkpoint(folder) as checkpoint:
        return checkpoint.text


def settings(folder: Path, file: str, **changes: object) -> None:
    """Change fields of a JSON file; None removes one."""
    found = {**json.loads((folder / file).read_text()), **changes}
    tiny.write_json(folder / file, {key: value for key, value in found.items() if value is not None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "hf")


def test_the_tokenizer_is_passed_on_byte_for_byte(folder: Path) -> None:
    assert text_of(folder).tokenizer_json == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_begin_token_is_asked_for_only_if_the_tokenizer_adds_it(add_bos: bool, tmp_path: Path) -> None:
    found = text_of(tiny.write_hf_folder(tmp_path / "hf", tiny.Config(add_bos=add_bos)))
    assert (found.add_bos, found.bos_id) == (add_bos, tiny.IM_START)


def test_end_ids_of_all_files_are_united_in_order(folder: Path) -> None:
    settings(folder, "config.json", eos_token_id=5)
    settings(folder, "generation_config.json", eos_token_id=[7, 5])
    assert text_of(folder).eos_ids == (5, 7, tiny.IM_END)


def test_tokens_are_found_by_their_text_where_ids_are_missing(folder: Path) -> None:
    settings(folder, "config.json", bos_token_id=None, eos_token_id=None, pad_token_id=None)
    (folder / "generation_config.json").unlink()
    settings(folder, "tokenizer_config.json", bos_token={"content": "<|im_start|>"})
    found = text_of(folder)
    assert (found.bos_id, found.eos_ids, found.pad_id) == (tiny.IM_START, (tiny.IM_END,), tiny.IM_END)


def test_without_special_tokens_there_are_none(folder: Path) -> None:
    settings(folder, "config.json", bos_token_id=None, pad_token_id=None)
    (folder / "tokenizer_config.json").unlink()
    found = text_of(folder)
    assert (found.bos_id, found.pad_id, found.add_bos, found.chat_template) == (None, None, False, None)
    assert found.tokenizer_config == {}


def _template_in_the_older_file(folder: Path) -> None:
    settings(folder, "tokenizer_config.json", chat_template=None)
    tiny.write_json(folder / "chat_template.json", {"chat_template": "c"})


def _no_end(folder: Path) -> None:
    settings(folder, "config.json", eos_token_id=None)
    settings(folder, "tokenizer_config.json", eos_token=None)
    (folder / "generation_config.json").unlink()


TEMPLATES: dict[str, tuple[str | None, Callable[[Path], object]]] = {
    "text": ("a", lambda f: settings(f, "tokenizer_config.json", chat_template="a")),
    "several": (
        "b",
        lambda f: settings(
            f,
            "tokenizer_config.json",
            chat_template=[{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}],
        ),
    ),
    "several without a default": (
        None,
        lambda f: settings(f, "tokenizer_config.json", chat_template=[{"name": "rag", "template": "a"}]),
    ),
    "its own file wins": ("é", lambda f: (f / "chat_template.jinja").write_text("é", encoding="utf-8")),
    "in the older file": (
        "c",
        _template_in_the_older_file,
    ),
    "none": (None, lambda f: settings(f, "tokenizer_config.json", chat_template=None)),
}


@pytest.mark.parametrize(("expected", "change"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_the_chat_template_is_found_wherever_it_is(
    expected: str | None, change: Callable[[Path], object], folder: Path
) -> None:
    change(folder)
    assert text_of(folder).chat_template == expected


BAD: dict[str, tuple[type[CheckpointError], str, Callable[[Path], object]]] = {
    "no tokenizer": (UnsupportedCheckpoint, "save_pretrained", lambda f: (f / "tokenizer.json").unlink()),
    "tokenizer that is no JSON": (
        CorruptCheckpoint,
        r"tokenizer\.json",
        lambda f: (f / "tokenizer.json").write_text("{"),
    ),
    "tokenizer that is not UTF-8": (
        CorruptCheckpoint,
        r"tokenizer\.json",
        lambda f: (f / "tokenizer.json").write_bytes(b"\xff"),
    ),
    "tokenizer of no kind": (CorruptCheckpoint, r"tokenizer\.json", lambda f: (f / "tokenizer.json").write_text("{}")),
    "no end": (
        UnsupportedCheckpoint,
        "end-of-text",
        _no_end,
    ),
    "end as text": (CorruptCheckpoint, "eos_token_id", lambda f: settings(f, "config.json", eos_token_id="2")),
    "end as truth": (CorruptCheckpoint, "eos_token_id", lambda f: settings(f, "config.json", eos_token_id=True)),
    "negative end": (CorruptCheckpoint, "eos_token_id", lambda f: settings(f, "config.json", eos_token_id=[2, -1])),
    "template as number": (
        CorruptCheckpoint,
        "chat_template",
        lambda f: settings(f, "tokenizer_config.json", chat_template=3),
    ),
    "template that is not UTF-8": (
        CorruptCheckpoint,
        r"chat_template\.jinja",
        lambda f: (f / "chat_template.jinja").write_bytes(b"\xff"),
    ),
    "settings that are a list": (
        CorruptCheckpoint,
        r"tokenizer_config\.json",
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
    ),
}


@pytest.mark.parametrize(("error", "words", "damage"), BAD.values(), ids=BAD.keys())
def test_broken_tokenizer_files_are_refused_by_name(
    error: type[CheckpointError], words: str, damage: Callable[[Path], object], folder: Path
) -> None:
    damage(folder)
    with pytest.raises(error, match=words):
        text_of(folder)
