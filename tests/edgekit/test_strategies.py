import re
from pathlib import Path

import pytest

from edgekit import strategies as rules
from edgekit.chat import Message, ToolCall
from edgekit.errors import InvalidRequest, UsageError
from edgekit.strategies import Strategy

USER = Message(role="user", content="What is 2 + 2?")
SYSTEM = Message(role="system", content="Be kind.")
STRATEGY = Strategy(description="d", system="SYS", reasoning="WHY", answer="NOW")
OWN = '[strategy.mine]\ndescription = "mine"\nsystem = "Be brief."\n'


def contents(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


def write(folder: Path, text: str) -> Path:
    path = folder / "strategies.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_ones_are_those_that_the_readme_names() -> None:
    found = rules.packaged()
    assert found.names == ("direct", "step-by-step", "recall-then-answer", "extract-then-answer", "auto")
    assert [name for name, strategy in found.named.items() if not strategy.reasons] == ["direct"]
    assert found.named["direct"].system == ""  # it is the model's own answer


# --- phases ---


def test_the_reasoning_is_asked_for_behind_the_question() -> None:
    assert contents(rules.reasoning_messages((SYSTEM, USER), STRATEGY)) == [
        ("system", "Be kind.\n\nSYS"),
        ("user", "What is 2 + 2?\n\nWHY"),
    ]


def test_a_system_prompt_is_put_in_front_where_there_is_none() -> None:
    assert contents(rules.reasoning_messages((USER,), STRATEGY))[0] == ("system", "SYS")


def test_the_answers_phase_begins_with_the_whole_of_the_first_one() -> None:
    first = rules.reasoning_messages((SYSTEM, USER), STRATEGY)
    second = rules.answer_messages((SYSTEM, USER), STRATEGY, " 4, I think.\n")
    assert second[: len(first)] == first
    assert contents(second[len(first) :]) == [("assistant", " 4, I think.\n"), ("user", "NOW")]


def test_a_late_system_prompt_leaves_what_was_read_before_the_question_as_it_is() -> None:
    assert contents(rules.reasoning_messages((SYSTEM, USER), STRATEGY, late=True)) == [
        ("system", "Be kind."),
        ("user", "What is 2 + 2?\n\nSYS\n\nWHY"),
    ]
    assert contents(rules.only_messages((USER,), STRATEGY, late=True)) == [("user", "What is 2 + 2?\n\nSYS")]


def test_one_phase_has_only_the_system_prompt() -> None:
    assert contents(rules.only_messages((USER,), STRATEGY)) == [("system", "SYS"), ("user", "What is 2 + 2?")]
    plain = Strategy(description="d")
    assert rules.only_messages((SYSTEM, USER), plain) == (SYSTEM, USER)
    assert rules.only_messages((SYSTEM, USER), plain, late=True) == (SYSTEM, USER)


def test_where_the_user_did_not_speak_last_the_request_is_a_turn_of_its_own() -> None:
    result = Message(role="tool", content="12 degrees", tool_call_id="a")
    assert rules.reasoning_messages((USER, result), STRATEGY)[-2:] == (result, Message(role="user", content="WHY"))


def test_what_else_a_message_has_is_kept() -> None:
    call = ToolCall(id="a", name="f", arguments="{}")
    asked = Message(role="user", content="x", tool_calls=(call,), name="Ada")
    (_, found) = rules.reasoning_messages((asked,), STRATEGY)
    assert (found.name, found.tool_calls) == ("Ada", (call,))


def test_choosing_shows_every_name_and_description_behind_the_question() -> None:
    found = rules.packaged()
    (message,) = rules.choosing_messages((USER,), found)
    assert message.content.startswith("What is 2 + 2?\n\n")
    for name, strategy in found.named.items():
        assert f"- {name}: {strategy.description}" in message.content


def test_the_pattern_matches_the_names_and_nothing_else() -> None:
    pattern = re.compile(rules.choosing_pattern(rules.packaged()))
    assert all(pattern.fullmatch(name) for name in rules.packaged().named)
    assert not pattern.fullmatch("auto")
    assert not pattern.fullmatch("stepXbyXstep")


@pytest.mark.parametrize(
    ("written", "name"),
    [("direct", "direct"), (" step-by-step\n", "step-by-step"), ("recall-th", "recall-then-answer"), ("", "direct")],
)
def test_what_was_written_is_a_name_or_its_beginning(written: str, name: str) -> None:
    assert rules.packaged().chosen(written) == name


def test_of_two_names_that_begin_alike_the_one_that_was_written_counts(tmp_path: Path) -> None:
    found = rules.load(write(tmp_path, OWN + OWN.replace("mine", "mine-too")))
    assert found.chosen("mine") == "mine"
    assert found.chosen("mine-too") == "mine-too"


@pytest.mark.parametrize(("tokens", "reasoning"), [(0, 0), (1, 0), (2, 1), (10, 7), (100, 50), (10_000, 50)])
def test_the_answer_always_gets_a_token(tokens: int, reasoning: int) -> None:
    assert rules.reasoning_tokens(Strategy(description="d", share=0.7, limit=50), tokens) == reasoning


def test_no_share_is_so_large_that_nothing_is_left() -> None:
    assert rules.reasoning_tokens(Strategy(description="d", share=0.999), 2) == 1


# --- files ---


def test_a_users_file_adds_and_replaces(tmp_path: Path) -> None:
    own = OWN + '[strategy.direct]\ndescription = "other"\n[auto]\ndescription = "x"\nquestion = "Which?"\n'
    found = rules.load(write(tmp_path, own))
    assert found.names == (*rules.packaged().named, "mine", "auto")
    assert found.named["mine"].system == "Be brief."
    assert found.named["direct"] == Strategy(description="other")
    assert found.auto.question == "Which?"


def test_without_a_file_there_are_the_packaged_ones(tmp_path: Path) -> None:
    assert rules.load(None) is rules.load(tmp_path / "none.toml") is rules.packaged()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[strategy", "is not TOML"),
        ("\x00", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ('[strategies.x]\ndescription = "d"', "unknown key `strategies`: did you mean `strategy`?"),
        (
            '[strategy.x]\ndescripton = "d"',
            "[strategy.x] has the unknown key `descripton`: did you mean `description`?",
        ),
        ('[strategy.x]\ndescription = "d"\nzzz = 1', "unknown key `zzz`: known are description, system"),
        ("[strategy.x]", "[strategy.x]: Object missing required field `description`"),
        ('strategy = "x"', "strategy must be a table"),
        ("[strategy]\nx = 1", "[strategy.x] must be a table"),
        ('[strategy."A b"]\ndescription = "d"', "a name is of a to z"),
        ('[strategy.auto]\ndescription = "d"', 'not "auto"'),
        ('[strategy.x]\ndescription = "d"\nreasoning = "r"', "give both or neither"),
        ('[strategy.x]\ndescription = "d"\nshare = 1.5', "$.share"),
        ('[strategy.x]\ndescription = "d"\nlimit = 0', "$.limit"),
        ('[strategy.x]\ndescription = "d"\nsystem = 5', "$.system"),
        (f'[strategy.x]\ndescription = "{"d" * 201}"', "$.description"),
        (f'[strategy.x]\ndescription = "d"\nsystem = "{"d" * 8_001}"', "$.system"),
        ("[auto]\nquestion = 'q'", "[auto]: Object missing required field `description`"),
        ("".join(f'[strategy.s{i}]\ndescription = "d"\n' for i in range(40)), "more than 32 strategies"),
        ("#" * (rules.MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as error:
        rules.load(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as error:
        rules.packaged().check("step-by-stpe")
    assert error.value.param == "edgekit.strategy"
    assert "Did you mean 'step-by-step'?" in str(error.value)
    assert "direct, step-by-step, recall-then-answer, extract-then-answer, auto" in str(error.value)
    for name in rules.packaged().names:
        rules.packaged().check(name)
