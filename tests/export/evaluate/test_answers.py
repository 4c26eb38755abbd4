"""Readers whose logits are known give answers and scores that are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.bundle import open_bundle
from edgekit.errors import BadTask
from export.evaluate import answers
from export.evaluate.answers import Answer, TaskScore
from export.evaluate.prompts import Prompts
from export.evaluate.questions import Question, Sample, Style, Task, read_task, sample
from export.evaluate.reader import Reader
from tests import tiny
from tests.export.evaluate.test_questions import BOOLQ, HELLASWAG, MBPP, written

VOCAB = tiny.DEFAULT.vocab


class Recites:
    """Continues the texts that it knows and is indifferent elsewhere."""

    def __init__(self, known: Sequence[list[int]], context_tokens: int = 2000) -> None:
        self._known = known
        self.longest = 0
        self.context_tokens = context_tokens

    def after(self, ids: Sequence[int], keep: int) -> NDArray[np.float32]:
        self.longest = max(self.longest, len(ids))
        rows = np.zeros((keep, VOCAB), np.float32)
        for row, end in enumerate(range(len(ids) - keep + 1, len(ids) + 1)):
            for text in self._known:
                if list(ids[:end]) == text[:end] and end < len(text):
                    rows[row, text[end]] = 9
        return rows


class Unigram:
    """Every token has its own probability wherever it stands; a control token takes what is left."""

    context_tokens = 2000

    def __init__(self, probabilities: dict[int, float]) -> None:
        self._logits = np.full(VOCAB, -20, np.float32)
        rest = {tiny.IM_START: 1 - sum(probabilities.values())}
        for token, probability in (rest | probabilities).items():
            self._logits[token] = np.log(probability)

    def after(self, ids: Sequence[int], keep: int) -> NDArray[np.float32]:
        return np.tile(self._logits, (keep, 1))


@pytest.fixture(params=[True, False], ids=["raw", "chat"])
def prompts(request: pytest.FixtureRequest, float_bundle: Path) -> Prompts:
    return Prompts(open_bundle(float_bundle), raw=request.param)


def question(style: Style, request: str, answer: str, *choices: str, tests: str = "") -> Question:
    return Question(where="line 1", style=style, request=request, answer=answer, choices=choices, tests=tests)


def asked(*questions: Question) -> tuple[Task, Sample]:
    return Task("t", Path("t.jsonl"), questions), Sample(questions, ((),) * len(questions))


def answered(reader: Reader, prompts: Prompts, each: Question) -> Answer:
    (answer,) = answers.answers(reader, prompts, *asked(each), judge=lambda program, tests: program == tests)
    return answer


def recites(prompts: Prompts, each: Question, text: str, *, ends: bool = True) -> Recites:
    start = prompts.prompt(each, ())
    ids = prompts.ids(start + prompts.lead(each) + text)
    return Recites([[*ids, tiny.IM_END, *prompts.ids("9")[-1:]] if ends else ids])  # what follows an end is no answer


@pytest.mark.parametrize("right", ["(A)", "(B)", "(C)"])
def test_the_likeliest_choice_is_taken(right: str, prompts: Prompts) -> None:
    each = question("choice", "Which?", "(B)", "(A)", "(B)", "(C)")
    answer = answered(recites(prompts, each, right), prompts, each)
    assert answer == Answer(right, right == "(B)", right, right == "(B)")


def test_long_choices_are_weighed_whole_and_per_token(float_bundle: Path) -> None:
    prompts = Prompts(open_bundle(float_bundle), raw=False)
    one, three = prompts.ids("x"), prompts.ids("zzz")
    assert (len(one), len(three)) == (1, 3)
    reader = Unigram({one[0]: 0.1, three[0]: 0.3})  # 0.1 against 0.3 ** 3 = 0.027
    answer = answered(reader, prompts, question("choice", "Which?", "zzz", "x", "zzz"))
    assert answer == Answer("x", right=False, normalised_text="zzz", normalised_right=True)


def test_a_token_that_joins_prompt_and_answer_counts(float_bundle: Path) -> None:
    """ "the" is one token, and so is "th": behind "t" the choice "he" changes the prompt's last token."""
    prompts = Prompts(open_bundle(float_bundle), raw=True)
    each = Question(where="", style="choice", request="x", cue="", opening="t", answer="he", choices=("he", "n"))
    the, t, n = prompts.ids("xthe")[-1], prompts.ids("xt")[-1], prompts.ids("xtn")[-1]
    assert len(prompts.ids("xthe")) == len(prompts.ids("xt")) == 2
    assert answered(Unigram({the: 0.2, t: 0.3, n: 0.4}), prompts, each).text == "he"
    assert answered(Unigram({the: 0.1, t: 0.3, n: 0.4}), prompts, each).text == "n"


@dataclass(frozen=True)
class Wrote:
    text: str
    answer: str
    right: bool


WROTE = (
    Wrote("24", "24", right=True),
    Wrote("24.", "24", right=True),
    Wrote("25", "24", right=False),
    Wrote("24\nand more", "24", right=True),
    Wrote("\n\n24\n\n25", "24", right=True),
    Wrote("So the answer is 24.", "24", right=True),
    Wrote("The answer is: **24**", "24", right=True),
    Wrote("true", "True", right=True),
    Wrote('"] )"', "] )", right=True),
    Wrote("240", "24", right=False),
    Wrote("", "24", right=False),
)


@pytest.mark.parametrize("wrote", WROTE, ids=lambda wrote: repr(wrote.text))
def test_what_was_written_is_held_against_the_target(wrote: Wrote, prompts: Prompts) -> None:
    each = question("match", "How many?", wrote.answer)
    answer = answered(recites(prompts, each, wrote.text), prompts, each)
    assert answer.right is answer.normalised_right is wrote.right


def test_writing_ends_at_the_line_and_at_the_limit(float_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = Prompts(open_bundle(float_bundle), raw=False)
    each = question("match", "?", "x")
    assert answered(recites(prompts, each, "xyz\nabc", ends=False), prompts, each).text == "xyz"
    z = prompts.ids("z")[0]
    assert answered(Unigram({z: 0.9}), prompts, each).text == "z" * answers.MAX_MATCH_TOKENS
    assert answered(Unigram({tiny.IM_END: 0.9}), prompts, each).text == ""
    monkeypatch.setattr(Unigram, "context_tokens", len(prompts.ids(prompts.prompt(each, ()))) + 5)
    assert answered(Unigram({z: 0.9}), prompts, each).text == "z" * 5


@pytest.mark.parametrize(
    ("wrote", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here it is:\n```\nx = 1\n```\nIt adds.", "x = 1\n"),
        ("```py\nx = 1\n", "x = 1\n"),
        ("x = 1", "x = 1"),
    ],
)
def test_a_program_is_what_stands_between_fences(wrote: str, program: str) -> None:
    assert answers.extract_program(wrote) == program


def test_a_program_is_judged_with_its_tests(tmp_path: Path, prompts: Prompts) -> None:
    task = read_task(written(tmp_path / "code.jsonl", MBPP))
    (each,) = task.questions
    seen = []

    def judge(program: str, tests: str) -> bool:
        seen.append((program, tests))
        return True

    text = each.answer if prompts.given(each) else each.opening + each.answer
    reader = recites(prompts, each, text + " and so on", ends=False)
    asked = sample(task, limit=None, seed=0, shots=0)
    (answer,) = answers.answers(reader, prompts, task, asked, judge)
    assert answer.right
    assert seen == [("def f(x): return x + 1\n", each.tests)]
    assert reader.longest < len(prompts.ids(prompts.prompt(each, ()) + text))  # nothing was asked behind the fence


def test_plain_prompts_are_paragraphs(tmp_path: Path, float_bundle: Path) -> None:
    prompts = Prompts(open_bundle(float_bundle), raw=True)
    boolq, hellaswag, mbpp = read_task(written(tmp_path / "t.jsonl", BOOLQ, HELLASWAG, MBPP)).questions
    asked = "Ice is cold.\nQuestion: is ice cold? Yes or no?\nAnswer:"
    assert prompts.prompt(boolq, [boolq]) == f"{asked} No\n\n{asked}"
    assert prompts.prompt(hellaswag, [hellaswag]) == "A man flies.\n\nA man"
    assert prompts.lead(hellaswag) == " "
    assert prompts.prompt(mbpp, ()).endswith("assert f(1) == 2\n```python\n")
    assert prompts.prompt(mbpp, [mbpp]).count("```python\ndef f(x): return x + 1\n```\n\nWrite") == 1
    assert prompts.lead(mbpp) == ""


def test_chat_prompts_are_turns(tmp_path: Path, float_bundle: Path) -> None:
    prompts = Prompts(open_bundle(float_bundle), raw=False)
    (mbpp,) = read_task(written(tmp_path / "t.jsonl", MBPP)).questions
    text = prompts.prompt(mbpp, [mbpp])
    assert text.count("<|im_start|>") == 4
    assert "<|im_start|>assistant\n```python\ndef f(x): return x + 1\n```<|im_end|>" in text
    assert text.endswith("Reply with the program only.<|im_end|>\n<|im_start|>assistant\n")
    assert prompts.ids(text).count(tiny.IM_START) == 4
    assert prompts.lead(mbpp) == ""


def test_plain_text_begins_as_the_model_asks_and_has_no_control_tokens(tmp_path: Path) -> None:
    from tests.export.exports import export_tiny

    export_tiny(tiny.write_gguf(tmp_path / "tiny.gguf", tiny.Config(add_bos=True)), tmp_path / "out")
    bundle = open_bundle(tmp_path / "out")
    assert Prompts(bundle, raw=True).ids("<|im_end|>")[0] == tiny.IM_START
    assert tiny.IM_END not in Prompts(bundle, raw=True).ids("<|im_end|>")
    assert Prompts(bundle, raw=False).ids("<|im_end|>") == [tiny.IM_END]


def test_a_question_that_does_not_fit_is_named(prompts: Prompts) -> None:
    each = question("choice", "word " * 50, "x", "x", "y")
    tokens = len(prompts.ids(prompts.prompt(each, ())))
    choice = len(prompts.ids("x"))
    assert answered(Recites([], tokens + choice + 1), prompts, each).text == "x"
    with pytest.raises(BadTask, match=rf"t\.jsonl.*line 1 takes {tokens + choice + 1} tokens, more than the model's"):
        answered(Recites([], tokens + choice), prompts, each)


def answer(text: str, *, right: bool, normalised: bool = False) -> Answer:
    return Answer(text, right, text, normalised)


def test_scores_are_shares() -> None:
    task, _ = asked(*[question("match", "?", "x")] * 4)
    mine = [
        answer("x", right=True, normalised=True),
        answer("b", right=False),
        answer("c", right=False),
        answer("X", right=True),
    ]
    theirs = [
        answer("x", right=True),
        answer("x", right=True),
        answer("d", right=False),  # both wrong, and not in the same way
        answer("x", right=True),
    ]
    assert answers.score(task, mine, theirs) == TaskScore(
        task="t", questions=4, score=0.5, score_normalised=0.25, reference_score=0.75, agreement=0.5
    )
    alone = answers.score(task, mine, None)
    assert (alone.reference_score, alone.agreement) == (None, None)


def test_all_tasks_together_weigh_every_question() -> None:
    one = TaskScore(task="a", questions=1, score=1.0, score_normalised=0.0, reference_score=1.0, agreement=1.0)
    two = TaskScore(task="b", questions=3, score=0.0, score_normalised=1.0, reference_score=1 / 3, agreement=0.0)
    assert answers.overall([one, two]) == TaskScore(
        task="all", questions=4, score=0.25, score_normalised=0.75, reference_score=0.5, agreement=0.25
    )
