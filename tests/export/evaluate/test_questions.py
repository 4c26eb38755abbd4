import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import BadTask
from export.evaluate.questions import KINDS, Question, Task, read_task, sample

BBH_LETTERS = {"input": "Which?\nOptions:\n(A) one\n(B) two (B)\n(C) three", "target": "(B)"}
BBH_WORDS = {"input": "Is it so?\nOptions:\n- valid \n- invalid", "target": "invalid"}
BBH_OPEN = {"input": "not ( True ) is", "target": "False"}
BBH_GLITCH = {"input": "Which?\nOptions:\n(A) Monsters\n(B) Inc", "target": "Monsters, Inc"}
BBH_ONE = {"input": "Which?\nOptions:\n(A) The NB", "target": "(A)"}
MMLU = {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1, "subject": "sums"}
BOOLQ = {"question": "is ice cold?", "passage": "Ice is cold.", "answer": False, "title": "Ice"}
HELLASWAG = {"ctx": "A man", "endings": [" sits.", " flies."], "label": "1", "ind": 3}
MBPP = {"text": "Add one.", "code": "def f(x): return x + 1\r\n", "test_list": ["assert f(1) == 2"], "task_id": 7}
MBPP_SANITISED = {"prompt": "Add.", "code": "f = 1", "test_list": ["assert f"], "test_imports": ["import math"]}


@dataclass(frozen=True)
class Read:
    name: str
    row: dict[str, Any]
    style: str
    answer: str
    choices: tuple[str, ...] = ()


READ = (
    Read("bbh letters", BBH_LETTERS, "choice", "(B)", ("(A)", "(B)", "(C)")),
    Read("bbh words", BBH_WORDS, "choice", "invalid", ("valid", "invalid")),
    Read("bbh open", BBH_OPEN, "match", "False"),
    Read("bbh with a target that is no option", BBH_GLITCH, "match", "Monsters, Inc"),
    Read("bbh with one option", BBH_ONE, "match", "(A)"),
    Read("mmlu", MMLU, "choice", "B", ("A", "B")),
    Read("mmlu by letter", {**MMLU, "answer": "A"}, "choice", "A", ("A", "B")),
    Read("boolq", BOOLQ, "choice", "No", ("Yes", "No")),
    Read("hellaswag", HELLASWAG, "choice", "flies.", ("sits.", "flies.")),
    Read("mbpp", MBPP, "program", "def f(x): return x + 1\n```"),
    Read("mbpp sanitised", MBPP_SANITISED, "program", "f = 1\n```"),
)


def written(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_a_row_is_recognised_by_its_fields(case: Read, tmp_path: Path) -> None:
    (question,) = read_task(written(tmp_path / "task.jsonl", case.row)).questions
    assert (question.style, question.answer, question.choices) == (case.style, case.answer, case.choices)
    for words in (str(value) for name, value in case.row.items() if name in ("input", "ctx", "passage", "text")):
        assert words in question.request


def test_all_known_kinds_are_tried() -> None:
    assert {case.name.split()[0] for case in READ} == set(KINDS)


def test_choices_of_mmlu_are_listed_by_letter(tmp_path: Path) -> None:
    (question,) = read_task(written(tmp_path / "task.jsonl", MMLU)).questions
    assert question.request == "2 + 2?\nA. 3\nB. 4"


def test_tests_of_a_program_run_behind_what_they_import(tmp_path: Path) -> None:
    (question,) = read_task(written(tmp_path / "task.jsonl", MBPP_SANITISED)).questions
    assert question.tests.split("\n") == ["import math", "", "assert f"]
    assert "assert f" in question.request


def test_both_forms_of_file_say_where_a_row_stands(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text(f"{json.dumps(MMLU)}\n\n{json.dumps(BOOLQ)}\n", encoding="utf-8")
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps({"canary": "x", "examples": [BBH_OPEN, BBH_WORDS]}, indent=2), encoding="utf-8")
    assert [question.where for question in read_task(lines).questions] == ["line 1", "line 3"]
    assert [question.where for question in read_task(whole).questions] == ["example 1", "example 2"]
    assert read_task(whole).name == "whole"
    assert not read_task(whole).has_programs
    assert read_task(written(tmp_path / "code.jsonl", MMLU, MBPP)).has_programs


@dataclass(frozen=True)
class Wrong:
    name: str
    content: bytes
    said: str


def line(row: object) -> bytes:
    return json.dumps(MMLU).encode() + b"\n" + json.dumps(row).encode()


WRONG = (
    Wrong("empty", b"", "no questions"),
    Wrong("no examples", b'{"examples": []}', "no questions"),
    Wrong("not JSON", json.dumps(MMLU).encode() + b"\n{", "line 2 is not JSON"),
    Wrong("not UTF-8", b'"\xff"', "line 1 is not JSON"),
    Wrong("nested too deep", b"[" * 100_000, "line 1 is not JSON"),
    Wrong("not an object", line([1]), "line 2 is not an object"),
    Wrong("unknown fields", line({"q": 1, "a": 2}), "line 2 has the fields q, a. Known are bbh: input, target; mmlu"),
    Wrong("no fields", line({}), "line 2 has the fields nothing"),
    Wrong("wrong type", line({**MMLU, "choices": "AB"}), "line 2: Expected `array`"),
    Wrong("answer out of range", line({**MMLU, "answer": 2}), "line 2: the answer 2 is none of 2 choices"),
    Wrong("negative answer", line({**MMLU, "answer": -1}), "line 2: the answer -1 is none"),
    Wrong("a word for an answer", line({**MMLU, "answer": "four"}), "line 2: the answer 'four' is none"),
    Wrong("two letters for an answer", line({**MMLU, "answer": "AB"}), "line 2: the answer 'AB' is none"),
    Wrong("one choice", line({**HELLASWAG, "endings": ["x"], "label": 0}), "line 2: there must be 2 to 64 choices"),
    Wrong("equal choices", line({**HELLASWAG, "endings": ["x", " x"]}), "line 2: there must be 2 to 64 choices"),
    Wrong("an empty choice", line({**HELLASWAG, "endings": ["x", " "]}), "line 2: there must be 2 to 64 choices"),
    Wrong("too many choices", line({**HELLASWAG, "endings": [str(i) for i in range(65)]}), "2 to 64 choices"),
    Wrong("no target", line({**BBH_OPEN, "target": " "}), "line 2: the target is empty"),
    Wrong("truth as text", line({**BOOLQ, "answer": "false"}), "line 2: Expected `bool`"),
    Wrong("no tests", line({**MBPP, "test_list": []}), "line 2: a program needs"),
    Wrong("no task", line({**MBPP, "text": " "}), "line 2: a program needs"),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_malformed_file_is_one_error_that_names_the_row(wrong: Wrong, tmp_path: Path) -> None:
    file = tmp_path / "task.jsonl"
    file.write_bytes(wrong.content)
    with pytest.raises(BadTask) as caught:
        read_task(file)
    assert wrong.said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_or_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadTask, match="no such file"):
        read_task(tmp_path / "nothing.jsonl")
    monkeypatch.setattr("export.evaluate.questions.MAX_TASK_BYTES", 10)
    with pytest.raises(BadTask, match="larger than 10 bytes"):
        read_task(written(tmp_path / "task.jsonl", MMLU))


def task(count: int) -> Task:
    questions = [Question(where=str(i), style="match", request=f"q{i}", answer="a") for i in range(count)]
    return Task("t", Path("t.jsonl"), tuple(questions))


def taken(limit: int | None, *, seed: int = 0, shots: int = 0, count: int = 40) -> list[str]:
    return [question.where for question in sample(task(count), limit=limit, seed=seed, shots=shots).questions]


def test_a_sample_is_the_same_everywhere_and_for_ever() -> None:
    assert taken(6) == ["7", "15", "18", "20", "25", "36"]
    assert taken(6, seed=1) != taken(6)
    assert taken(None) == [str(i) for i in range(40)]
    assert taken(99) == taken(None)


def test_a_larger_sample_holds_the_smaller_one() -> None:
    assert set(taken(5)) < set(taken(12)) < set(taken(30))


@pytest.mark.parametrize(("limit", "shots"), [(5, 1), (5, 3), (None, 3), (39, 2)])
def test_examples_are_other_rows(limit: int | None, shots: int) -> None:
    made = sample(task(40), limit=limit, seed=0, shots=shots)
    for question, examples in zip(made.questions, made.shots, strict=True):
        assert len(set(examples)) == shots
        assert question not in examples
    if limit == 5:
        assert not {example for examples in made.shots for example in examples} & set(made.questions)
        assert len(set(made.shots)) == 1  # the same before every question, so that they are read once


def test_too_few_rows_for_the_examples_are_an_error() -> None:
    assert sample(task(3), limit=None, seed=0, shots=2).questions
    with pytest.raises(BadTask, match="it has 3 questions: too few for 3 examples"):
        sample(task(3), limit=1, seed=0, shots=3)


def test_the_questions_with_which_strategies_are_measured_are_thirty() -> None:
    """Ten to work out, ten of knowledge, ten about a text."""
    task = read_task(Path(__file__).parents[2] / "golden" / "questions.jsonl")
    assert [question.style for question in task.questions] == ["match"] * 10 + ["choice"] * 20
