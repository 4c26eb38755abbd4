"""A reader answers questions; answers become scores.

A choice is made by likelihood: the one whose text is most probable after the prompt, once as it is (the sum of its
tokens' log-probabilities) and once per token (their mean), which does not favour short ones. A match or a program is
written greedily until it ends.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgekit.errors import BadTask
from export.evaluate.prompts import Prompts
from export.evaluate.questions import Question, Sample, Task
from export.evaluate.reader import Reader
from export.evaluate.strategic import Prepared, Way
from export.evaluate.writing import likelihoods, write

MAX_MATCH_TOKENS = 64
MAX_PROGRAM_TOKENS = 400

Judge = Callable[[str, str], bool]
"""(program, tests) -> whether the program passes them; see `sandbox.passes`."""


@dataclass(frozen=True)
class Answer:
    """What was answered, and whether it is right; once more for choices weighed per token (others: the same).

    `tokens` are those of the answer and of the reasoning before it; `strategy` is the one that was followed, if any.
    """

    text: str
    right: bool
    normalised_text: str
    normalised_right: bool
    tokens: int = field(default=0, compare=False)
    strategy: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Shares of `questions`: right ones, right ones per token, right ones of the reference, equal answers of both.

    `chosen` counts the strategies that were followed, where there were any.
    """

    task: str
    questions: int
    score: float
    score_normalised: float
    reference_score: float | None
    agreement: float | None
    tokens_per_answer: float = 0.0
    chosen: Mapping[str, int] = field(default_factory=dict)


def answers(
    reader: Reader, prompts: Prompts, task: Task, asked: Sample, judge: Judge, *, way: Way | None = None
) -> Iterator[Answer]:
    """Answer one question after the other, each by a strategy if a `way` is given.

    Raises BadTask for one that the model's context cannot hold; with a `way`, TemplateError, and UsageError for a model
    without a chat template.
    """
    for question, shots in zip(asked.questions, asked.shots, strict=True):
        longest = max((len(prompts.ids(choice)) for choice in question.choices), default=1)
        if way is None:
            prepared = Prepared(prompts.prompt(question, shots), 0, "")
        else:
            wanted = longest + 1 if question.choices else _most(question)
            prepared = way.prepare(reader, prompts, question, shots, answer_tokens=wanted)
        prompt = prepared.prompt
        room = reader.context_tokens - len(prompts.ids(prompt))
        if room < longest + 1:
            needed = reader.context_tokens - room + longest + 1
            raise BadTask(
                str(task.path),
                f"{question.where} takes {needed} tokens, more than the model's {reader.context_tokens}",
            )
        answer = _answer(reader, prompts, question, prompt, judge)
        yield replace(answer, tokens=answer.tokens + prepared.tokens, strategy=prepared.strategy)


def _answer(reader: Reader, prompts: Prompts, question: Question, prompt: str, judge: Judge) -> Answer:
    if question.style == "choice":
        return _chosen(reader, prompts, question, prompt)
    written, tokens = write(
        reader,
        prompts,
        prompt,
        limit=_most(question),
        ended=_ENDED[question.style],
        given=prompts.given(question),
    )
    if question.style == "match":
        text = extract(written)
        right = text.casefold() == extract(question.answer).casefold()
    else:
        text = extract_program(written)
        right = judge(text, question.tests)
    return Answer(text, right, text, right, tokens)


def _chosen(reader: Reader, prompts: Prompts, question: Question, prompt: str) -> Answer:
    lead = prompts.lead(question)
    found = likelihoods(reader, prompts, prompt, [lead + choice for choice in question.choices])
    each = list(zip(found, question.choices, strict=True))
    raw = max(each, key=lambda one: one[0].sum)[1]
    normalised = max(each, key=lambda one: one[0].mean)[1]
    tokens = len(prompts.ids(raw))
    return Answer(raw, raw == question.answer, normalised, normalised == question.answer, tokens)


def _most(question: Question) -> int:
    """Tokens of an answer that is written."""
    return MAX_MATCH_TOKENS if question.style == "match" else MAX_PROGRAM_TOKENS


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
        tokens_per_answer=sum(answer.tokens for answer in found) / len(found),
        chosen=dict(Counter(answer.strategy for answer in found if answer.strategy)),
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
        tokens_per_answer=mean([each.tokens_per_answer for each in scores]) or 0.0,
        chosen=dict(sum((Counter(each.chosen) for each in scores), Counter())),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
