"""The reasoning that some models write before their answer, between two marks: told apart from the answer."""

from collections.abc import Callable

from device_agent.engine.records import ModelService
from edgekit.marks import MARKS, Marks, marks_in

_Step = Callable[[], tuple[str, str]]


def marks_of(model: ModelService) -> Marks | None:
    """The marks between which this model reasons, seen in its template or its vocabulary; None if it knows none."""
    if (marks := marks_in(model.template or "")) is not None:
        return marks
    ids = {marks: (model.token_id(marks.opening), model.token_id(marks.closing)) for marks in MARKS}
    return next((marks for marks, both in ids.items() if None not in both), None)


class Thinking:
    """Parts an answer's text into reasoning and answer, without the marks and the white space around them.

    Only a mark at the very beginning counts; later ones are text. What may be the beginning of a mark is held back, so
    the result does not depend on how the text was cut into pieces. Without `marks` all text is the answer.
    """

    def __init__(self, marks: Marks | None, *, inside: bool = False) -> None:
        self._marks = marks or Marks("", "")
        self._held = ""
        self._step: _Step = self._answer if marks is None else self._inside if inside else self._before
        self._begun = False  # whether any of the reasoning was given out

    @property
    def inside(self) -> bool:
        """Whether the answer began with reasoning, and nothing but that has come so far."""
        return self._step in (self._inside, self._between)

    @property
    def answering(self) -> bool:
        """Whether what comes next can only be the answer."""
        return self._step == self._answer

    def push(self, text: str) -> tuple[str, str]:
        """(reasoning, answer) that became certain with this piece."""
        self._held += text
        thought = said = ""
        step: _Step | None = None
        while step != self._step:  # a piece may end one part and begin the next
            step = self._step
            more_thought, more_said = step()
            thought, said = thought + more_thought, said + more_said
        return thought, said

    def finish(self) -> tuple[str, str]:
        """What was held back, at the answer's end."""
        rest, self._held = self._held, ""
        if self._step == self._inside:
            return (rest.rstrip() if self._begun else rest.strip()), ""
        return "", "" if self._step == self._between else rest

    def _before(self) -> tuple[str, str]:
        begun = self._held.lstrip()
        if begun.startswith(self._marks.opening):
            self._held = begun.removeprefix(self._marks.opening)
            self._step = self._inside
        elif not self._marks.opening.startswith(begun):
            self._step = self._answer
        return "", ""

    def _inside(self) -> tuple[str, str]:
        if not self._begun:
            self._held = self._held.lstrip()
        text, found, rest = self._held.partition(self._marks.closing)
        if found:
            self._held, self._step = rest, self._between
        else:
            text = text[: _beginning(self._marks.closing, text)]
        sure = text.rstrip()
        if not found:
            self._held = self._held[len(sure) :]
        self._begun = self._begun or bool(sure)
        return sure, ""

    def _between(self) -> tuple[str, str]:
        self._held = self._held.lstrip()
        if self._held:
            self._step = self._answer
        return "", ""

    def _answer(self) -> tuple[str, str]:
        said, self._held = self._held, ""
        return "", said


def _beginning(mark: str, text: str) -> int:
    """Where the longest end of `text` that begins `mark` starts; the length of `text` if none does."""
    return next(at for at in range(max(0, len(text) - len(mark) + 1), len(text) + 1) if mark.startswith(text[at:]))
