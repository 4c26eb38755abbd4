from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.arch import ModelArch
from edgekit.errors import CalibrationTooShort, CheckpointError, CheckpointNotFound
from export.checkpoints import TextFiles, open_checkpoint
from export.quantize import calibration
from export.quantize.calibration import MIN_ROWS, ROW_TOKENS, ROWS, from_file, from_model
from tests import tiny
from tests.export.exports import opened
from tests.export.random_weights import arch_from

SHORT = tiny.Config(context=24)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_hf_folder(tmp_path_factory.mktemp("source") / "tiny", SHORT)


@pytest.fixture(scope="module")
def text(source: Path) -> TextFiles:
    with open_checkpoint(source) as checkpoint:
        return checkpoint.text


@pytest.fixture
def arch() -> ModelArch:
    return arch_from(tiny.hf_config(SHORT))


def numbers(folder: Path, count: int) -> Path:
    """A text of `count` tokens: each digit is one."""
    file = folder / "numbers.txt"
    file.write_text("".join(str(place % 10) for place in range(count)))
    return file


@pytest.mark.parametrize(("rows", "context"), [(64, 24), (9, 24), (8, 24), (8, 4096)])
def test_rows_are_spread_over_the_whole_file(
    rows: int, context: int, text: TextFiles, arch: ModelArch, tmp_path: Path
) -> None:
    arch = arch_from(tiny.hf_config(tiny.Config(context=context)))
    length = min(context, ROW_TOKENS)
    count = 5000 if rows == ROWS else rows * length + length // 2
    ids = from_file(numbers(tmp_path, count), text, arch)
    assert ids.shape == (rows, length)
    digits = [tiny.vocabulary()[str(digit)] for digit in range(10)]
    starts = [digits.index(token) for token in ids[:, 0]]
    for row, start in zip(ids, starts, strict=True):
        assert row.tolist() == [digits[(start + place) % 10] for place in range(length)]
    assert starts[0] == 0
    assert ids[-1, -1] == digits[(count - 1) % 10]


def test_a_smaller_number_of_rows_can_be_asked_for(text: TextFiles, arch: ModelArch, tmp_path: Path) -> None:
    assert from_file(numbers(tmp_path, 5000), text, arch, 16).shape == (16, 24)


def test_one_token_too_few_is_told_with_numbers(text: TextFiles, arch: ModelArch, tmp_path: Path) -> None:
    needed = MIN_ROWS * 24
    assert len(from_file(numbers(tmp_path, needed), text, arch)) == MIN_ROWS
    with pytest.raises(CalibrationTooShort, match=rf"numbers\.txt has {needed - 1} tokens, and {needed} are needed"):
        from_file(numbers(tmp_path, needed - 1), text, arch)


def test_an_empty_file_is_too_short(text: TextFiles, arch: ModelArch, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(CalibrationTooShort, match="0 tokens"):
        from_file(tmp_path / "empty", text, arch)


@pytest.mark.parametrize("name", ["missing.txt", "."], ids=["missing", "a folder"])
def test_a_file_that_is_not_there_is_named(name: str, text: TextFiles, arch: ModelArch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no such text file"):
        from_file(tmp_path / name, text, arch)


def test_special_tokens_of_the_tokenizer_s_own_are_not_added(source: Path, arch: ModelArch, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(add_bos=True).to_str().encode()
    with open_checkpoint(source) as checkpoint:
        adding = replace(checkpoint.text, tokenizer_json=tokenizer)
    assert tiny.IM_START not in from_file(numbers(tmp_path, 1000), adding, arch)


def test_bytes_that_are_no_text_are_read_all_the_same(text: TextFiles, arch: ModelArch, tmp_path: Path) -> None:
    file = tmp_path / "noise"
    file.write_bytes(bytes(range(256)) * 20)
    assert len(from_file(file, text, arch)) >= MIN_ROWS


def test_only_the_start_of_a_huge_file_is_read(
    text: TextFiles, arch: ModelArch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MAX_TEXT_BYTES", MIN_ROWS * 24)
    assert len(from_file(numbers(tmp_path, 100_000), text, arch)) == MIN_ROWS


def test_words_that_the_model_does_not_have_are_refused(text: TextFiles, tmp_path: Path) -> None:
    arch = arch_from(tiny.hf_config(tiny.Config(context=24, vocab=tiny.vocabulary()["hello"])))
    file = tmp_path / "hello.txt"
    file.write_text("1234567890" * 50 + "hello")
    with pytest.raises(CheckpointError, match=f"the id {tiny.vocabulary()['hello']}, but the model has only"):
        from_file(file, text, arch)


@pytest.fixture(scope="module")
def own_text(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    with open_checkpoint(source) as checkpoint, opened(source) as (arch, weights):
        ids = from_model(arch, weights, checkpoint.text, tmp_path_factory.mktemp("work"), lambda *_: None)
    found: list[list[int]] = ids.tolist()
    return found


def test_a_model_writes_rows_as_long_as_its_context(own_text: list[list[int]]) -> None:
    assert np.asarray(own_text).shape == (ROWS, 24)


def test_its_rows_begin_as_plain_text_and_as_a_user_s_turn(own_text: list[list[int]]) -> None:
    opened_turn = tiny.tokenizer().encode("<|im_start|>user\n", add_special_tokens=False).ids
    for number, row in enumerate(own_text):
        before = opened_turn if number % 2 else [tiny.IM_START]
        assert row[: len(before)] == before
        assert row[len(before)] >= len(tiny.SPECIALS)  # a word, no control token
        assert row[len(before)] < len(tiny.vocabulary())
    assert len({row[1] for row in own_text[::2]}) > 10
    assert len({row[len(opened_turn)] for row in own_text[1::2]}) > 10


def rows_of(source: Path, changed: TextFiles, work: Path) -> list[list[int]]:
    with opened(source) as (arch, weights):
        found: list[list[int]] = from_model(arch, weights, changed, work, lambda *_: None, 4).tolist()
    return found


@pytest.mark.parametrize(
    "template",
    [None, "{{ raise_exception('no') }}"],
    ids=["none", "one that refuses"],
)
def test_without_a_usable_template_all_rows_are_plain(
    template: str | None, source: Path, text: TextFiles, tmp_path: Path
) -> None:
    rows = rows_of(source, replace(text, chat_template=template), tmp_path)
    assert {row[0] for row in rows} == {tiny.IM_START}
    assert {row[1] for row in rows}.isdisjoint(range(len(tiny.SPECIALS)))


def test_without_a_first_token_of_its_own_a_text_begins_after_the_end_of_another(
    source: Path, text: TextFiles, tmp_path: Path
) -> None:
    rows = rows_of(source, replace(text, bos_id=None, chat_template=None), tmp_path)
    assert {row[0] for row in rows} == {text.eos_ids[0]}


def test_a_turn_that_opens_longer_than_the_context_still_makes_a_row(
    source: Path, text: TextFiles, tmp_path: Path
) -> None:
    wordy = "{{ '1234567890' * 9 + messages[0]['content'] }}"
    rows = rows_of(source, replace(text, chat_template=wordy), tmp_path)
    assert len(rows[1]) == 24
    assert tiny.tokenizer().decode(rows[1]) == "123456789012345678901234"
