"""The process that tries grammars, and what becomes of it."""

import io
import json
import sys
from collections.abc import Iterator

import pytest
from llguidance import LLMatcher

from device_agent.engine.grammars import child as grammar_child
from device_agent.engine.grammars import trial as grammar_trial
from device_agent.engine.grammars.trial import Trials
from edgekit.errors import Overloaded, ServerError

KNOWN = {"vocab": 400, "eos": [2, 0], "special": {2: "<|end|>", 300: "<|call|>"}}
ENDLESS = LLMatcher.grammar_from_json_schema(
    {"allOf": [{"type": "integer", "multipleOf": prime} for prime in (7, 11, 13, 17, 19, 23, 29)]}
)
CRASHING = "start: r0\n" + "\n".join(f"r{i}: r{i + 1} r{i + 1} | r{i + 1}?" for i in range(2000)) + '\nr2000: "x"?'


@pytest.fixture
def trials() -> Iterator[Trials]:
    made = Trials(vocab=400, eos=(2, 0), special={2: "<|end|>", 300: "<|call|>"}, trial_s=1)
    yield made
    made.close()


@pytest.mark.parametrize(
    "grammar",
    ['start: "a" <|call|> /[0-9]+/ <|end|>', "start: <[399]> <[*]>", 'start: "ü"?', LLMatcher.grammar_from_regex("a*")],
)
def test_grammars_have_no_problem(trials: Trials, grammar: str) -> None:
    assert trials.problem(grammar) == ""


def test_a_problem_is_told(trials: Trials) -> None:
    assert "nobody" in trials.problem("start: nobody")
    assert "<|nobody|>" in trials.problem("start: <|nobody|>")


@pytest.mark.parametrize("grammar", [ENDLESS, CRASHING], ids=["endless", "crashing"])
def test_a_grammar_that_computes_for_ever_or_crashes_is_a_problem_and_the_next_one_is_tried(
    trials: Trials, grammar: str
) -> None:
    assert "too complex" in trials.problem(grammar)
    assert trials.problem('start: "a"') == ""


def test_one_process_serves_all(trials: Trials) -> None:
    trials.problem('start: "a"')
    first = trials._process
    trials.problem('start: "b"')
    assert first is not None
    assert trials._process is first


def test_a_process_that_may_be_about_to_end_is_not_asked(trials: Trials) -> None:
    trials.problem('start: "a"')
    first = trials._process
    trials._asked_at -= grammar_child.IDLE_S
    assert trials.problem('start: "a"') == ""
    assert trials._process is not first


def test_a_process_that_has_died_is_started_again(trials: Trials) -> None:
    trials.problem('start: "a"')
    assert trials._process
    trials._process.kill()
    trials._process.wait()
    assert trials.problem('start: "a"') == ""


def test_after_close_nothing_runs(trials: Trials) -> None:
    trials.problem('start: "a"')
    process = trials._process
    trials.close()
    assert process
    assert process.returncode is not None
    trials.close()


def test_nothing_is_started_before_the_first_grammar(trials: Trials) -> None:
    assert trials._process is None


def test_a_program_that_does_not_start_is_an_error_of_the_agent(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/nothing")
    with pytest.raises(ServerError, match="cannot be tried"):
        trials.problem('start: "a"')


def test_a_program_that_ends_at_once_is_an_error_of_the_agent(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_child, "__file__", "/nonexistent")
    with pytest.raises(ServerError, match="does not start"):
        trials.problem('start: "a"')


def test_who_waits_too_long_for_others_is_told_to_come_again(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trial, "PATIENCE_S", 0.01)
    with trials._lock, pytest.raises(Overloaded):
        trials.problem('start: "a"')


def told(*grammars: str) -> list[str]:
    """What the program writes, run here."""
    out = io.StringIO()
    special = {str(token_id): name for token_id, name in KNOWN["special"].items()}  # type: ignore[attr-defined]
    grammar_child.answer([json.dumps(item) for item in ({**KNOWN, "special": special}, *grammars)], out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def _no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_child, "_end_when_idle", lambda: None)


def test_the_program_answers_each_line_with_one() -> None:
    assert told('start: "a"', LLMatcher.grammar_from_regex("b+"), "start: <|call|>") == ["", "", "", ""]


def test_the_program_walks_into_an_answer() -> None:
    (_, problem) = told("start: x\nx: " + " | ".join(f'"{i}" y y' for i in range(3000)) + '\ny: "z"')
    assert "items" in problem
