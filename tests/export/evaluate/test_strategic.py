"""Readers that know what to write reason first, and answer behind it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit import strategies as rules
from edgekit.bundle import open_bundle
from edgekit.chat import ChatTemplate, Message
from edgekit.errors import BadTask, TemplateError, UsageError
from edgekit.strategies import Strategies, Strategy
from export.evaluate import answers
from export.evaluate.job import EvalJob, evaluate
from export.evaluate.prompts import Prompts
from export.evaluate.questions import Question, Sample, Task
from export.evaluate.strategic import Way
from tests import tiny
from tests.export.evaluate.test_questions import BOOLQ, MBPP, written
from tests.export.silent import Heard

THINKS = Strategy(description="hard ones", system="Sys.", reasoning="Why?", answer="So?", limit=20)
KNOWN = Strategies(
    MappingProxyType({"direct": Strategy(description="easy ones"), "thinks": THINKS}), rules.packaged().auto
)
CHOICE = Question(where="line 1", style="choice", request="Which?", answer="x", choices=("x", "y"))
MATCH = Question(where="line 1", style="match", request="How many?", answer="24")


class Writes:
    """Continues a prompt as it was told to, with an end behind it, and is indifferent elsewhere."""

    context_tokens = 2000

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._known: list[list[int]] = []
        self.seen: list[str] = []

    def after(self, ids: Sequence[int], keep: int) -> NDArray[np.float32]:
        self.seen.append(self._prompts.tokenizer.decode(list(ids), skip_special_tokens=False))
        rows = np.zeros((keep, tiny.DEFAULT.vocab), np.float32)
        for row, end in enumerate(range(len(ids) - keep + 1, len(ids) + 1)):
            for text in self._known:
                if list(ids[:end]) == text[:end] and end < len(text):
                    rows[row, text[end]] = 9
        return rows

    def told(self, prompt: str, text: str) -> None:
        self._known.append([*self._prompts.ids(prompt + text), tiny.IM_END])


@pytest.fixture
def prompts(float_bundle: Path) -> Prompts:
    return Prompts(open_bundle(float_bundle), raw=False)


def asked(question: Question, prompts: Prompts, build: Callable[..., tuple[Message, ...]], *rest: object) -> str:
    return prompts.rendered(build(prompts.conversation(question, ()), *rest))


def answered(reader: Writes, prompts: Prompts, question: Question, way: Way) -> answers.Answer:
    task, sample = Task("t", Path("t.jsonl"), (question,)), Sample((question,), ((),))
    (found,) = answers.answers(reader, prompts, task, sample, lambda *_: False, way=way)
    return found


@pytest.mark.parametrize(("question", "right"), [(CHOICE, "x"), (CHOICE, "y"), (MATCH, "24"), (MATCH, "25")])
def test_the_answer_comes_behind_the_reasoning(question: Question, right: str, prompts: Prompts) -> None:
    reader = Writes(prompts)
    reader.told(asked(question, prompts, rules.reasoning_messages, THINKS), "zzz")
    reader.told(asked(question, prompts, rules.answer_messages, THINKS, "zzz"), right)
    answer = answered(reader, prompts, question, Way(name="thinks", strategies=KNOWN))
    assert (answer.text, answer.right) == (right, right in ("x", "24"))
    assert answer.tokens == len(prompts.ids("zzz")) + len(prompts.ids(right))
    assert answer.strategy == "thinks"


def test_a_direct_answer_is_what_it_is_without_strategies(prompts: Prompts) -> None:
    reader = Writes(prompts)
    reader.told(prompts.prompt(MATCH, ()), "24")
    answer = answered(reader, prompts, MATCH, Way(name="direct", strategies=KNOWN))
    assert (answer.right, answer.tokens) == (True, len(prompts.ids("24")))


@pytest.mark.parametrize("name", ["direct", "thinks"])
def test_auto_takes_the_likeliest_name(name: str, prompts: Prompts) -> None:
    reader = Writes(prompts)
    reader.told(asked(MATCH, prompts, rules.choosing_messages, KNOWN), name)
    answer = answered(reader, prompts, MATCH, Way(name="auto", strategies=KNOWN))
    assert answer.strategy == name
    assert any("Why?" in seen for seen in reader.seen) == (name == "thinks")
    assert "<|im_start|>system\nSys." not in reader.seen[-1]  # the conversation begins as it did for choosing


def test_where_choosing_does_not_fit_the_first_is_taken(prompts: Prompts) -> None:
    reader = Writes(prompts)
    reader.context_tokens = len(prompts.ids(asked(MATCH, prompts, rules.choosing_messages, KNOWN)))
    assert answered(reader, prompts, MATCH, Way(name="auto", strategies=KNOWN)).strategy == "direct"


@pytest.mark.parametrize(("most", "written_tokens"), [(None, 20), (5, 5), (50, 20)])
def test_reasoning_has_a_limit(most: int | None, written_tokens: int, prompts: Prompts) -> None:
    reader = Writes(prompts)
    reader.told(asked(CHOICE, prompts, rules.reasoning_messages, THINKS), "1 2 3 4 5 6 7 8 9 " * 9)
    answer = answered(reader, prompts, CHOICE, Way(name="thinks", strategies=KNOWN, most_tokens=most))
    assert answer.tokens == written_tokens + 1


def test_the_context_bounds_the_reasoning_and_the_question_is_named_if_nothing_fits(prompts: Prompts) -> None:
    longest = len(prompts.ids(asked(CHOICE, prompts, rules.answer_messages, THINKS, ".")))
    alone = len(prompts.ids(asked(CHOICE, prompts, rules.only_messages, THINKS)))
    reader = Writes(prompts)
    for context, tokens in {longest + 2 + 7: 8, longest + 2: 1, alone + 2: 1}.items():
        reader.context_tokens = context
        reader.told(asked(CHOICE, prompts, rules.reasoning_messages, THINKS), "1 2 3 4 5 6 7 8 9 " * 9)
        assert answered(reader, prompts, CHOICE, Way(name="thinks", strategies=KNOWN)).tokens == tokens
    reader.context_tokens = alone + 1
    with pytest.raises(BadTask, match="line 1 takes"):
        answered(reader, prompts, CHOICE, Way(name="thinks", strategies=KNOWN))


def test_where_the_template_takes_no_system_prompt_it_follows_the_question(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = ChatTemplate.render

    def refuses(self: ChatTemplate, messages: Sequence[Message]) -> str:
        if messages[0].role == "system":
            raise TemplateError("System role not supported")
        return render(self, messages)

    monkeypatch.setattr(ChatTemplate, "render", refuses)
    reader = Writes(prompts)
    answered(reader, prompts, MATCH, Way(name="thinks", strategies=KNOWN))
    assert "Sys.\n\nWhy?" in reader.seen[0]


def test_a_model_that_reasons_by_itself_is_kept_from_it(float_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{# <think> #}{{ messages[0].content }}")
    monkeypatch.setattr("export.evaluate.prompts.bundle_template", lambda *_: template)
    prompts = Prompts(open_bundle(float_bundle), raw=False)
    assert prompts.rendered([Message(role="user", content="a")]) == "a<think>\n\n</think>\n\n"


def test_every_strategy_has_its_scores(float_bundle: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", BOOLQ, BOOLQ)
    ways = tuple(Way(name=name, strategies=KNOWN, most_tokens=4) for name in ("direct", "thinks", "auto"))
    heard = Heard()
    found = evaluate(EvalJob(bundle=float_bundle, reference=float_bundle, tasks=(file,), ways=ways), heard)
    told = found.as_json()
    assert set(told) == {"strategies"}
    rows = json.loads(json.dumps(told, allow_nan=False))["strategies"]
    assert [row["strategy"] for row in rows] == ["direct", "thinks", "auto"]
    for row in rows:
        assert row["agreement"] == 1.0
        assert row["score"] == row["reference_score"] == row["tasks"][0]["score"]
        assert row["questions"] == 2
    assert [row["chosen"] for row in rows[:2]] == [{"direct": 2}, {"thinks": 2}]
    assert sum(rows[2]["chosen"].values()) == 2
    assert rows[0]["tokens_per_answer"] < rows[1]["tokens_per_answer"] <= rows[0]["tokens_per_answer"] + 4
    table = found.strategy_table()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| direct", "| thinks", "| auto"]
    assert heard.stages[-1] == "asking t: 2 questions by auto"


def test_strategies_are_conversations(float_bundle: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", BOOLQ)
    job = EvalJob(bundle=float_bundle, tasks=(file,), raw=True, ways=(Way(name="direct", strategies=KNOWN),))
    with pytest.raises(UsageError, match="chat template"):
        evaluate(job, Heard())


def test_a_program_leaves_room_for_all_that_it_may_take(prompts: Prompts, tmp_path: Path) -> None:
    from export.evaluate.questions import read_task

    (question,) = read_task(written(tmp_path / "code.jsonl", MBPP)).questions
    reader = Writes(prompts)
    longest = len(prompts.ids(asked(question, prompts, rules.answer_messages, THINKS, ".")))
    reader.context_tokens = longest + answers.MAX_PROGRAM_TOKENS + 3
    reader.told(asked(question, prompts, rules.reasoning_messages, THINKS), "1 2 3 4 5 6 7 8 9 " * 9)
    found = Way(name="thinks", strategies=KNOWN).prepare(
        reader, prompts, question, (), answer_tokens=answers.MAX_PROGRAM_TOKENS
    )
    assert found.tokens == 3
