"""A reader answers questions; answers become scores.

A choice is made by likelihood: the one whose text is most probable after the prompt, once as it is (the sum of its
tokens' log-probabilities) and once per token (their mean), which does not favour short ones. A match or a program is
written greedily until it ends.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import BadTask
from export.divergence import log_softmax
from export.evaluate.prompts import Prompts
from export.evaluate.questions import Question, Sample, Task
from export.evaluate.reader import Reader, common_prefix

MAX_MATCH_TOKENS = 64
MAX_PROGRAM_TOKENS = 400

Judge = Callable[[str, str], bool]
"""(program, tests) -> whether the program passes them; see `sandbox.passes`."""


@dataclass(frozen=True)
class Answer:
    """What was answered, and whether it is right; once more for choices weighed per token (others: the same)."""

    text: str
    right: bool
    normalised_text: str
    normalised_right: bool


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Shares of `questions`: right ones, right ones per token, right ones of the reference, equal answers of both."""

    task: str
    questions: int
    score: float
    score_normalised: float
    reference_score: float | None
    agreement: float | None


def answers(reader: Reader, prompts: Prompts, task: Task, asked: Sample, judge: Judge) -> Iterator[Answer]:
    """Answer one question after the other. Raises BadTask for one that the model's context cannot hold."""
    for question, shots in zip(asked.questions, asked.shots, strict=True):
        prompt = prompts.prompt(question, shots)
        room = reader.context_tokens - len(prompts.ids(prompt))
        longest = max((len(prompts.ids(choice)) for choice in question.choices), default=1)
        if room < longest + 1:
            needed = reader.context_tokens - room + longest + 1
            raise BadTask(
                str(task.path),
                f"{question.where} takes {needed} tokens, more than the model's {reader.context_tokens}",
            )
        yield _answer(reader, prompts, question, prompt, judge)


def _answer(reader: Reader, prompts: Prompts, question: Question, prompt: str, judge: Judge) -> Answer:
    if question.style == "choice":
        return _chosen(reader, prompts, question, prompt)
    written = _written(reader, prompts, question, prompt)
    if question.style == "match":
        text = extract(written)
        right = text.casefold() == extract(question.answer).casefold()
    else:
        text = extract_program(written)
        right = judge(text, question.tests)
    return Answer(text, right, text, right)


def _chosen(reader: Reader, prompts: Prompts, question: Question, prompt: str) -> Answer:
    start, lead = prompts.ids(prompt), prompts.lead(question)
    whole = [prompts.ids(prompt + lead + choice) for choice in question.choices]
    # A tokenizer may join the end of the prompt with the answer: then both count, for every choice alike.
    shared = max(1, min(common_prefix(start, ids) for ids in whole))
    sums, means = [], []
    for ids in whole:
        predicted = np.asarray(ids[shared:])
        log_probabilities = log_softmax(reader.after(ids[:-1], len(predicted)))
        each = log_probabilities[np.arange(len(predicted)), predicted]
        sums.append(each.sum())
        means.append(each.mean())
    raw, normalised = question.choices[int(np.argmax(sums))], question.choices[int(np.argmax(means))]
    return Answer(raw, raw == question.answer, normalised, normalised == question.answer)


def _written(reader: Reader, prompts: Prompts, question: Question, prompt: str) -> str:
    """Greedy text until a token that ends answers, the end that the style knows, or its limit of tokens."""
    ended = _ENDED[question.style]
    limit = MAX_MATCH_TOKENS if question.style == "match" else MAX_PROGRAM_TOKENS
    ids = prompts.ids(prompt)
    made: list[int] = []
    text = given = prompts.given(question)
    while len(made) < limit and len(ids) + len(made) < reader.context_tokens and not ended(text):
        token = int(reader.after([*ids, *made], 1)[-1].argmax())
        if token in prompts.eos:
            break
        made.append(token)
        text = given + prompts.tokenizer.decode(made, skip_special_tokens=True)
    return text


def _line_ended(text: str) -> bool:
    return "\n" in text.lstrip()


def _program_ended(text: str) -> bool:
    """The fence behind the program is there."""
    return text.count("```") >= 2


_ENDED: dict[str, Callable[[str], bool]] = {"match": _line_ended, "program": _program_ended}
_ANSWER_IS = re.compile(r".*\banswer is\b:?\s*", re.IGNORECASE | re.DOTALL)
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def extract(written: str) -> str:
    """The answer in what was written: the first line, what follows "the answer is", without quotes and full stop."""
    line = _ANSWER_IS.sub("", written.strip()).partition("\n")[0]
    return line.strip(" \t\"'`*").removesuffix(".").strip(" \t\"'`*")


def extract_program(written: str) -> str:
    """The program between fences, or everything if there are none."""
    fenced = _FENCED.search(written)
    return fenced[1] if fenced else written


def score(task: Task, found: Sequence[Answer], reference: Sequence[Answer] | None) -> TaskScore:
    """Shares over a task's answers, beside the reference's to the same questions."""
    equal = None
    if reference is not None:
        equal = [mine.text.casefold() == other.text.casefold() for mine, other in zip(found, reference, strict=True)]
    return TaskScore(
        task=task.name,
        questions=len(found),
        score=_share([answer.right for answer in found]),
        score_normalised=_share([answer.normalised_right for answer in found]),
        reference_score=None if reference is None else _share([answer.right for answer in reference]),
        agreement=None if equal is None else _share(equal),
    )


def overall(scores: Sequence[TaskScore]) -> TaskScore:
    """All tasks together, every question counting once."""
    total = sum(each.questions for each in scores)

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value * each.questions for value, each in zip(values, scores, strict=True) if value is not None]
        return sum(known) / total if len(known) == len(scores) else None

    return TaskScore(
        task="all",
        questions=total,
        score=mean([each.score for each in scores]) or 0.0,
        score_normalised=mean([each.score_normalised for each in scores]) or 0.0,
        reference_score=mean([each.reference_score for each in scores]),
        agreement=mean([each.agreement for each in scores]),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
