"""The reasoning that some models write before their answer, between two marks: told apart from the answer.

Most write <think> and </think>; the table has the others. Templates of some open the first mark themselves, so an
answer begins inside of it. Which marks a model uses is seen in its template and its vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

from device_agent.engine.records import ModelService


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands before and behind the reasoning."""

    opening: str
    closing: str

    @property
    def nothing(self) -> str:
        """Reasoning that was skipped, as Qwen3's template writes it."""
        return f"{self.opening}\n\n{self.closing}\n\n"


MARKS = (
    Marks("<think>", "</think>"),  # Qwen3, SmolLM3, DeepSeek-R1 and its distills, Phi-4-reasoning, Hunyuan
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<thought>", "</thought>"),  # EXAONE Deep
)
"""The first pair that a model knows is its own."""

_Step = Callable[[], tuple[str, str]]
_SEEN_TOKENS = 16
"""At the end of a prompt: enough for an opening mark, however it was cut into tokens, and a line's end."""


def marks_of(model: ModelService) -> Marks | None:
    """The marks between which this model reasons; None if it knows none."""
    template = model.template or ""
    for marks in MARKS:
        if marks.opening in template or marks.closing in template:
            return marks
        if model.token_id(marks.opening) is not None and model.token_id(marks.closing) is not None:
            return marks
    return None


def reasons_by_itself(model: ModelService, marks: Marks) -> bool:
    """Whether reasoning is a part of this model's turns: some only have the marks in a vocabulary that they share."""
    return marks.opening in (model.template or "")


def opened(model: ModelService, prompt: tuple[int, ...], marks: Marks) -> bool:
    """Whether the answer to this prompt begins inside of the reasoning."""
    return _ends_with(model, prompt, marks.opening)


def closed(model: ModelService, prompt: tuple[int, ...], marks: Marks) -> bool:
    """Whether the answer to this prompt begins behind reasoning, which its template skips."""
    return _ends_with(model, prompt, marks.closing)


def _ends_with(model: ModelService, prompt: tuple[int, ...], mark: str) -> bool:
    return model.template is not None and model.text_of(prompt[-_SEEN_TOKENS:]).rstrip().endswith(mark)


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
