import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import CheckpointError, TemplateError
from export.checkpoints import TextFiles, open_checkpoint
from export.families import arch_of
from export.prompts import GOLDEN_QUESTION, GOLDEN_TEXTS, PROBE_TEXT, Prompts, prompts_for
from export.verify import GOLDEN_TOKENS
from tests import tiny


def prompts_of(folder: Path, config: tiny.Config, changed: Mapping[str, Any]) -> Prompts:
    with open_checkpoint(tiny.write_hf_folder(folder / "tiny", config)) as checkpoint:
        text: TextFiles = dataclasses.replace(checkpoint.text, **changed)
        return prompts_for(text, arch_of(checkpoint))


def texts(ids: list[int]) -> str:
    decoded: str = tiny.tokenizer().decode(ids, skip_special_tokens=False)
    return decoded


LONG = tiny.Config(context=4096)


def test_they_are_the_texts_in_the_model_s_tokens(tmp_path: Path) -> None:
    found = prompts_of(tmp_path, LONG, {})
    assert texts(found.probe) == PROBE_TEXT
    assert [texts(ids) for ids in found.golden[:-1]] == list(GOLDEN_TEXTS)
    assert texts(found.golden[-1]) == f"<|im_start|>user\n{GOLDEN_QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert found.golden[-1][0] == tiny.IM_START


def test_plain_text_begins_with_bos_only_if_the_model_asks_for_it(tmp_path: Path) -> None:
    with_bos = prompts_of(tmp_path / "a", tiny.Config(context=4096, add_bos=True), {})
    without = prompts_of(tmp_path / "b", LONG, {})
    assert [ids[0] for ids in with_bos.golden[:-1]] == [tiny.IM_START] * len(GOLDEN_TEXTS)
    assert [ids[1:] for ids in with_bos.golden[:-1]] == without.golden[:-1]
    assert with_bos.golden[-1] == without.golden[-1], "a template writes its own"


def test_without_a_template_there_is_no_question(tmp_path: Path) -> None:
    assert len(prompts_of(tmp_path, LONG, {"chat_template": None}).golden) == len(GOLDEN_TEXTS)


@pytest.mark.parametrize("context", [1, 16, 17, 40])
def test_a_short_context_cuts_them(context: int, tmp_path: Path) -> None:
    found = prompts_of(tmp_path, tiny.Config(context=context), {})
    assert len(found.probe) == context
    assert all(0 < len(ids) <= context - GOLDEN_TOKENS for ids in found.golden)


@pytest.mark.parametrize("changed", [{"eos_ids": (320,)}, {"bos_id": 400, "add_bos": True}], ids=["eos", "bos"])
def test_ids_that_the_model_does_not_have_are_refused(changed: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the model has only 320 tokens"):
        prompts_of(tmp_path, tiny.DEFAULT, changed)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the model has only 100 tokens"):
        prompts_of(tmp_path, tiny.Config(vocab=100), {})


def test_a_template_that_refuses_a_plain_question_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="no questions"):
        prompts_of(tmp_path, LONG, {"chat_template": "{{ raise_exception('no questions') }}"})
