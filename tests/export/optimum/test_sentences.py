"""What a sentence-transformers folder says, and what is refused because it would be left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgekit.errors import CorruptCheckpoint, EdgekitError, UnsupportedCheckpoint
from export.optimum.sentences import Recipe, is_sentence_model, read_recipe, read_text, tokenizer_of
from tests import tiny

CONFIG = {"max_position_embeddings": 512}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    tiny.write_json(tmp_path / "modules.json", MODULES)
    tiny.write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    return tmp_path


def test_a_folder_is_known_by_its_modules(folder: Path) -> None:
    assert is_sentence_model(folder)
    (folder / "modules.json").unlink()
    assert not is_sentence_model(folder)


def test_all_that_vectors_need_is_read(folder: Path) -> None:
    assert read_recipe(folder, CONFIG) == Recipe("mean", normalise=True, max_tokens=256)


def test_without_a_module_nothing_is_normalised(folder: Path) -> None:
    tiny.write_json(folder / "modules.json", MODULES[:2])
    assert not read_recipe(folder, CONFIG).normalise


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls"), ("pooling_mode_lasttoken", "last")],
)
def test_pooling_is_the_mode_that_is_on(folder: Path, mode: str, pooling: str) -> None:
    modes = {"word_embedding_dimension": 64, "pooling_mode_max_tokens": False, mode: True}
    tiny.write_json(folder / "1_Pooling" / "config.json", modes)
    assert read_recipe(folder, CONFIG).pooling == pooling


@pytest.mark.parametrize(
    ("trained", "tokenizer", "positions", "expected"),
    [(256, None, 512, 256), (512, 128, 512, 128), (None, 10**30, 512, 512), (512, 10**30, 64, 64)],
)
def test_the_smallest_limit_of_tokens_counts(
    folder: Path, trained: int | None, tokenizer: int | None, positions: int, expected: int
) -> None:
    tiny.write_json(folder / "sentence_bert_config.json", {"max_seq_length": trained})
    tiny.write_json(folder / "tokenizer_config.json", {"model_max_length": tokenizer})
    assert read_recipe(folder, {"max_position_embeddings": positions}).max_tokens == expected


def put(file: str, value: object) -> Callable[[Path], None]:
    return lambda folder: tiny.write_json(folder / file, value)


def cut_off(folder: Path) -> None:
    (folder / "modules.json").write_text("[", encoding="utf-8")


class Bad(NamedTuple):
    change: Callable[[Path], None]
    error: type[EdgekitError]
    words: str


def with_module(at: int, **changed: str) -> list[dict[str, Any]]:
    return [module | changed if number == at else module for number, module in enumerate(MODULES)]


BAD = {
    "a layer more": Bad(
        put("modules.json", with_module(2, type="sentence_transformers.models.Dense")), UnsupportedCheckpoint, "Dense"
    ),
    "no modules": Bad(put("modules.json", []), UnsupportedCheckpoint, "lists nothing"),
    "modules that are no list": Bad(put("modules.json", {"a": 1}), CorruptCheckpoint, "not a list of modules"),
    "modules that are no JSON": Bad(cut_off, CorruptCheckpoint, "not a list of modules"),
    "a module outside of the folder": Bad(
        put("modules.json", with_module(1, path="../../etc")), CorruptCheckpoint, "../../etc"
    ),
    "a transformer elsewhere": Bad(
        put("modules.json", with_module(0, path="0_Transformer")), UnsupportedCheckpoint, "0_Transformer"
    ),
    "no pooling settings": Bad(
        lambda folder: (folder / "1_Pooling" / "config.json").unlink(), CorruptCheckpoint, "1_Pooling"
    ),
    "pooling by maximum": Bad(
        put("1_Pooling/config.json", {"pooling_mode_max_tokens": True}), UnsupportedCheckpoint, "max_tokens"
    ),
    "two poolings at once": Bad(
        put("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}),
        UnsupportedCheckpoint,
        "pooling_mode_cls_token and pooling_mode_mean_tokens",
    ),
    "no pooling at all": Bad(put("1_Pooling/config.json", {}), UnsupportedCheckpoint, "pools by nothing"),
    "a prompt before every text": Bad(
        put("config_sentence_transformers.json", {"default_prompt_name": "query"}), UnsupportedCheckpoint, "prompt"
    ),
    "letters changed outside of the tokenizer": Bad(
        put("sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True}),
        UnsupportedCheckpoint,
        "do_lower_case",
    ),
    "a limit of no tokens": Bad(
        put("sentence_bert_config.json", {"max_seq_length": 0}), UnsupportedCheckpoint, "how many tokens"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_change_vectors_is_refused(name: str, folder: Path) -> None:
    BAD[name].change(folder)
    with pytest.raises(BAD[name].error) as refused:
        read_recipe(folder, CONFIG)
    assert BAD[name].words in str(refused.value)


def test_a_folder_without_any_limit_is_refused(folder: Path) -> None:
    (folder / "sentence_bert_config.json").unlink()
    with pytest.raises(UnsupportedCheckpoint, match="how many tokens"):
        read_recipe(folder, {})


def test_texts_are_cut_where_the_recipe_says_and_not_where_the_file_does(folder: Path) -> None:
    tokenizer = tiny.tokenizer(add_bos=True)
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(3)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    tokenize = tokenizer_of(read_text(folder), Recipe("mean", normalise=True, max_tokens=5))
    assert len(tokenize("a")) == 2
    assert len(tokenize("abcdefgh")) == 5
    assert tokenize("abcdefgh")[0] == tiny.IM_START


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"no tokenizer\.json"):
        read_text(folder)
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}), encoding="utf-8")
    with pytest.raises(CorruptCheckpoint, match=r"tokenizer\.json"):
        read_text(folder)
