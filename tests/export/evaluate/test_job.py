import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import read_manifest
from edgekit.errors import CheckpointNotFound, NotABundle, UsageError
from export.evaluate.answers import Answer
from export.evaluate.job import EvalJob, evaluate
from export.evaluate.questions import Sample
from export.evaluate.text import Count
from tests import tiny
from tests.export.evaluate.test_questions import BBH_OPEN, BBH_WORDS, BOOLQ, HELLASWAG, MBPP, MMLU, written
from tests.export.exports import Decoder, export_tiny
from tests.export.silent import Heard

TEXT = "The keeper wrote down the weather, and then hello, 12 birds on the railing. In the end there was one.\n" * 4


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def ids_of(text: str) -> list[int]:
    return list(tiny.tokenizer().encode(text).ids)


def log_probabilities(folder: Path, ids: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    logits = Decoder(folder, read_manifest(folder).arch).step(ids).astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def test_numbers_are_those_of_the_definition(text: Path, int4_bundle: Path, float_bundle: Path) -> None:
    heard = Heard()
    found = evaluate(EvalJob(bundle=int4_bundle, reference=float_bundle, text=text, tokens=60, window=25), heard).text
    assert found is not None
    ids = ids_of(TEXT)[:61]
    q, p = (
        np.concatenate([log_probabilities(folder, ids[at : min(at + 25, 60)]) for at in (0, 25, 50)])
        for folder in (int4_bundle, float_bundle)
    )
    assert found.tokens == 60
    assert found.perplexity == pytest.approx(np.exp(-q[range(60), ids[1:]].mean()), rel=1e-5)
    assert found.reference_perplexity == pytest.approx(np.exp(-p[range(60), ids[1:]].mean()), rel=1e-5)
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-4)
    assert found.same_top_token == pytest.approx((p.argmax(-1) == q.argmax(-1)).mean())
    assert heard.advances[-1] == (3, 3)


@pytest.mark.parametrize("asked", [False, True], ids=["text only", "text and tasks"])
def test_a_checkpoint_is_its_own_reference(
    asked: bool, text: Path, source: Path, float_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float it computes what its float bundle does; and nothing is left of what it took."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    tasks = (written(tmp_path / "t.jsonl", BOOLQ),) if asked else ()
    heard = Heard()
    result = evaluate(EvalJob(bundle=float_bundle, reference=source, text=text, tasks=tasks), heard)
    assert result.text is not None
    assert result.text.kl == pytest.approx(0, abs=1e-9)
    assert result.text.same_top_token == 1
    assert result.text.perplexity == pytest.approx(result.text.reference_perplexity, rel=1e-5)
    assert [score.agreement for score in result.tasks] == [1.0] * asked
    assert ("hashing" in heard.stages) is asked  # a text alone needs no export
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_window_is_at_most_the_context(text: Path, float_bundle: Path) -> None:
    """The tiny model reads 256 tokens; the default window is longer."""
    longest = evaluate(EvalJob(bundle=float_bundle, text=text, tokens=None), Heard()).text
    whole = evaluate(EvalJob(bundle=float_bundle, text=text, tokens=None, window=256), Heard()).text
    assert longest == whole
    assert longest is not None
    assert longest.tokens == len(ids_of(TEXT)) - 1 > 256


def test_only_the_second_half_of_windows_counts_if_asked(text: Path, float_bundle: Path) -> None:
    job = EvalJob(bundle=float_bundle, text=text, tokens=100, window=40, count=Count.SECOND_HALF)
    found = evaluate(job, Heard()).text
    assert found is not None
    assert found.tokens == 40


def test_a_bos_token_stands_before_every_window(text: Path, tmp_path: Path) -> None:
    export_tiny(tiny.write_gguf(tmp_path / "tiny.gguf", tiny.Config(add_bos=True)), tmp_path / "out")
    found = evaluate(EvalJob(bundle=tmp_path / "out", text=text, tokens=30, window=20), Heard()).text
    ids = ids_of(TEXT)[:30]
    pieces = [log_probabilities(tmp_path / "out", [tiny.IM_START, *ids[at : at + 19]]) for at in (0, 20)]
    each = [*pieces[0][range(20), ids[:20]], *pieces[1][range(10), ids[20:]]]
    assert found is not None
    assert found.tokens == 30
    assert found.perplexity == pytest.approx(np.exp(-np.mean(each)), rel=1e-5)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "chat"])
def test_tasks_are_scored_beside_the_reference(raw: bool, float_bundle: Path, tmp_path: Path) -> None:
    files = (
        written(tmp_path / "mixed.jsonl", MMLU, BOOLQ, HELLASWAG),
        written(tmp_path / "open.jsonl", BBH_OPEN, BBH_WORDS, BBH_OPEN),
    )
    heard = Heard()
    job = EvalJob(bundle=float_bundle, reference=float_bundle, tasks=files, raw=raw)
    found = evaluate(job, heard)
    assert [score.task for score in found.tasks] == ["mixed", "open"]
    assert all(score.agreement == 1 and score.score == score.reference_score for score in found.tasks)
    assert heard.advances == [(done, 6) for done in (*range(1, 7), *range(1, 7))]
    told = found.as_json()
    assert (told["questions"], told["agreement"]) == (6, 1.0)
    assert "kl" not in told
    json.dumps(told, allow_nan=False)


def test_limit_and_seed_choose_the_questions(
    float_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []

    def watched(*given: Any, **_: object) -> Iterator[Answer]:
        asked: Sample = given[3]
        seen.append(tuple(question.where for question in asked.questions))
        assert [len(shots) for shots in asked.shots] == [1, 1, 1]
        yield from (Answer("", right=True, normalised_text="", normalised_right=True) for _ in asked.questions)

    monkeypatch.setattr("export.evaluate.answers.answers", watched)
    file = written(tmp_path / "t.jsonl", *({**BOOLQ, "passage": f"Ice {i}."} for i in range(9)))
    for seed in (0, 0, 1):
        job = EvalJob(bundle=float_bundle, tasks=(file,), limit=3, seed=seed, shots=1)
        assert evaluate(job, Heard()).as_json()["questions"] == 3
    assert seen[0] == seen[1] != seen[2]


def test_programs_are_not_run_unless_allowed(tmp_path: Path) -> None:
    """Said before anything is opened: even the bundle is not there."""
    file = written(tmp_path / "mbpp.jsonl", MBPP)
    with pytest.raises(UsageError, match=r"mbpp\.jsonl asks for programs.*--run-code allows it"):
        evaluate(EvalJob(bundle=tmp_path / "nothing", tasks=(file,)), Heard())


def test_programs_are_run_when_allowed(float_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[tuple[str, ...]] = []

    def passes(*judging: str) -> bool:
        judged.append(judging)
        return True

    monkeypatch.setattr("export.evaluate.sandbox.passes", passes)
    monkeypatch.setattr("export.evaluate.answers.MAX_PROGRAM_TOKENS", 4)
    file = written(tmp_path / "mbpp.jsonl", MBPP)
    found = evaluate(EvalJob(bundle=float_bundle, tasks=(file,), run_code=True), Heard())
    assert found.tasks[0].score == 1
    assert len(judged) == 1


def test_another_vocabulary_is_another_model(text: Path, float_bundle: Path, tmp_path: Path) -> None:
    other = tiny.write_hf_folder(tmp_path / "other", tiny.Config(vocab=352))
    with pytest.raises(UsageError, match="has 352 tokens and the bundle 320"):
        evaluate(EvalJob(bundle=float_bundle, reference=other, text=text), Heard())


def test_what_is_not_there_is_named(text: Path, float_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(NotABundle):
        evaluate(EvalJob(bundle=tmp_path / "nothing", text=text), Heard())
    with pytest.raises(CheckpointNotFound):
        evaluate(EvalJob(bundle=float_bundle, reference=tmp_path / "nothing", text=text), Heard())
