"""Task files -> questions. A row's kind is recognised by its fields, from one table.

A file is JSON Lines, or one JSON object with a list `examples` (BIG-Bench Hard's form). Rows are those of the public
data sets, as their publishers name the fields; other fields are ignored:

    kind        fields                        asked as
    bbh         input, target                 multiple choice where options are listed and the target is one of them;
                                              exact match otherwise (Suzgun et al. 2022)
    mmlu        question, choices, answer     the letter of a choice (Hendrycks et al. 2021)
    boolq       question, passage, answer     yes or no (Clark et al. 2019)
    hellaswag   ctx, endings, label           the ending (Zellers et al. 2019)
    mbpp        text or prompt, code,         a program that must pass the tests (Austin et al. 2021)
                test_list

Task files come from elsewhere: sizes are capped, every row is checked, and one error names the first bad one.
"""

import hashlib
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgekit.errors import BadTask

MAX_TASK_BYTES = 256 << 20
MAX_QUESTIONS = 1_000_000
MAX_CHOICES = 64

Style = Literal["choice", "match", "program"]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Question:
    """`request` is what is asked, `cue` follows it where there is no chat template, `instruction` where there is one.

    A choice has `choices`, and `answer` is one of them. A match has the right text in `answer`. A program has in
    `answer` one that is right, behind the `opening` with which every answer begins, and in `tests` what must run
    behind it without an error. `where` names the row.
    """

    where: str
    style: Style
    request: str
    answer: str
    cue: str = "\nAnswer:"
    instruction: str = ""
    opening: str = ""
    choices: tuple[str, ...] = ()
    tests: str = ""


@dataclass(frozen=True)
class Task:
    """A file's questions in its order."""

    name: str
    path: Path
    questions: tuple[Question, ...]

    @property
    def has_programs(self) -> bool:
        """Whether an answer must be run to be judged."""
        return any(question.style == "program" for question in self.questions)


class _Bbh(msgspec.Struct):
    input: str
    target: str


class _Mmlu(msgspec.Struct):
    question: str
    choices: tuple[str, ...]
    answer: int | str


class _BoolQ(msgspec.Struct):
    question: str
    passage: str
    answer: bool


class _HellaSwag(msgspec.Struct):
    ctx: str
    endings: tuple[str, ...]
    label: int | str


class _Mbpp(msgspec.Struct):
    code: str
    test_list: tuple[str, ...]
    text: str = ""
    prompt: str = ""
    test_setup_code: str = ""
    test_imports: tuple[str, ...] = ()


_LETTERED = re.compile(r"^\(([A-Z])\)", re.MULTILINE)
_DASHED = re.compile(r"^- (.*\S)\s*$", re.MULTILINE)


def _bbh(row: Row, where: str) -> Question:
    asked = msgspec.convert(row, _Bbh)
    target = asked.target.strip()
    _, _, options = asked.input.partition("Options:")
    choices = tuple(f"({letter})" for letter in _LETTERED.findall(options)) or tuple(_DASHED.findall(options))
    # A few published rows list one option only, or have a target that is none of them: these can only be matched.
    if target in choices and 1 < len(set(choices)) == len(choices) <= MAX_CHOICES:
        return Question(where=where, style="choice", request=asked.input, answer=target, choices=choices)
    if not target:
        raise ValueError("the target is empty")
    instruction = "\nReply with the answer only."
    return Question(where=where, style="match", request=asked.input, answer=target, instruction=instruction)


def _mmlu(row: Row, where: str) -> Question:
    asked = msgspec.convert(row, _Mmlu)
    letters = string.ascii_uppercase[: len(asked.choices)]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, asked.choices, strict=False))
    if isinstance(asked.answer, str) and asked.answer in letters and len(asked.answer) == 1:
        answer = asked.answer
    else:
        answer = letters[_index(asked.answer, len(letters))]
    request = f"{asked.question.strip()}\n{listed}"
    return Question(where=where, style="choice", request=request, answer=answer, choices=_choices(letters))


def _boolq(row: Row, where: str) -> Question:
    asked = msgspec.convert(row, _BoolQ)
    request = f"{asked.passage.strip()}\nQuestion: {asked.question.strip().rstrip('?')}? Yes or no?"
    return Question(
        where=where, style="choice", request=request, answer="Yes" if asked.answer else "No", choices=("Yes", "No")
    )


def _hellaswag(row: Row, where: str) -> Question:
    asked = msgspec.convert(row, _HellaSwag)
    endings = _choices([ending.strip() for ending in asked.endings])
    answer = endings[_index(asked.label, len(endings))]
    return Question(where=where, style="choice", request=asked.ctx.strip(), answer=answer, cue="", choices=endings)


def _mbpp(row: Row, where: str) -> Question:
    asked = msgspec.convert(row, _Mbpp)
    wanted = (asked.text or asked.prompt).strip()
    if not wanted or not asked.test_list:
        raise ValueError("a program needs `text` (or `prompt`) and at least one test")
    tests = "\n".join(asked.test_list)
    return Question(
        where=where,
        style="program",
        request=f"Write a program in Python. {wanted}\nIt must pass these tests:\n{tests}",
        answer=f"{asked.code.strip()}\n```",
        cue="\n",
        opening="```python\n",
        instruction="\nReply with the program only.",
        tests="\n".join((*asked.test_imports, asked.test_setup_code, tests)),
    )


def _index(label: int | str, count: int) -> int:
    """A choice's number, which some publishers write as text. Raises ValueError."""
    number = int(label) if isinstance(label, int) or label.isdecimal() else -1
    if not 0 <= number < count:
        raise ValueError(f"the answer {label!r} is none of {count} choices")
    return number


def _choices(choices: Sequence[str]) -> tuple[str, ...]:
    if not 1 < len(choices) <= MAX_CHOICES or len(set(choices)) != len(choices) or not all(choices):
        raise ValueError(f"there must be 2 to {MAX_CHOICES} choices, all different and none empty")
    return tuple(choices)


@dataclass(frozen=True)
class _Kind:
    fields: frozenset[str]
    read: Callable[[Row, str], Question]


KINDS: Mapping[str, _Kind] = {
    "bbh": _Kind(frozenset({"input", "target"}), _bbh),
    "mmlu": _Kind(frozenset({"question", "choices", "answer"}), _mmlu),
    "boolq": _Kind(frozenset({"question", "passage", "answer"}), _boolq),
    "hellaswag": _Kind(frozenset({"ctx", "endings", "label"}), _hellaswag),
    "mbpp": _Kind(frozenset({"code", "test_list"}), _mbpp),
}
"""The first kind whose fields a row has all of is the row's."""


def read_task(path: Path) -> Task:
    """Read and check a task file. Raises BadTask, which names the row."""
    if not path.is_file():
        raise BadTask(str(path), "there is no such file")
    if path.stat().st_size > MAX_TASK_BYTES:
        raise BadTask(str(path), f"it is larger than {MAX_TASK_BYTES:,} bytes")
    rows = _rows(path)
    if not rows:
        raise BadTask(str(path), "it has no questions")
    if len(rows) > MAX_QUESTIONS:
        raise BadTask(str(path), f"it has more than {MAX_QUESTIONS:,} questions")
    return Task(path.stem, path, tuple(_question(path, where, row) for where, row in rows))


def _rows(path: Path) -> list[tuple[str, object]]:
    """(where, row) of either form."""
    raw = path.read_bytes()
    try:
        whole = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [(f"line {number}", _line(path, number, line)) for number, line in _lines(raw)]
    if isinstance(whole, dict) and isinstance(whole.get("examples"), list):
        return [(f"example {number}", row) for number, row in enumerate(whole["examples"], 1)]
    return [("line 1", whole)]


def _lines(raw: bytes) -> list[tuple[int, bytes]]:
    return [(number, line) for number, line in enumerate(raw.split(b"\n"), 1) if line.strip()]


def _line(path: Path, number: int, line: bytes) -> object:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadTask(str(path), f"line {number} is not JSON: {error}") from error


def _question(path: Path, where: str, row: object) -> Question:
    if not isinstance(row, dict):
        raise BadTask(str(path), f"{where} is not an object with fields")
    kind = next((kind for kind in KINDS.values() if kind.fields <= row.keys()), None)
    if kind is None:
        known = "; ".join(f"{name}: {', '.join(sorted(kind.fields))}" for name, kind in KINDS.items())
        found = ", ".join(map(str, row))[:200] or "nothing"
        raise BadTask(str(path), f"{where} has the fields {found}. Known are {known}")
    try:
        return kind.read(row, where)
    except ValueError as error:  # msgspec.ValidationError is one
        raise BadTask(str(path), f"{where}: {error}") from error


@dataclass(frozen=True)
class Sample:
    """What is asked, and after which solved examples: `questions[i]` after `shots[i]`."""

    questions: tuple[Question, ...]
    shots: tuple[tuple[Question, ...], ...]


def sample(task: Task, *, limit: int | None, seed: int, shots: int) -> Sample:
    """The same questions for the same seed on any machine; a larger limit adds to a smaller one's.

    Solved examples are other rows of the file, taken from the far end of the same order, so that they are asked
    themselves only when `limit` leaves no others. Raises BadTask if there are not so many.
    """
    count = len(task.questions)
    if shots >= count:
        raise BadTask(str(task.path), f"it has {count} questions: too few for {shots} examples before each")
    # Hashes, because their order is the same in every version of Python.
    order = sorted(range(count), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
    asked = sorted(order[:limit])
    before = [[i for i in order[count - shots - 1 :] if i != each][-shots:] if shots else [] for each in asked]
    return Sample(
        tuple(task.questions[i] for i in asked),
        tuple(tuple(task.questions[i] for i in examples) for examples in before),
    )
