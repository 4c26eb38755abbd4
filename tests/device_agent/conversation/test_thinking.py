from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.conversation.thinking import Thinking, marks_of
from edgekit.marks import MARKS, Marks
from tests.fakes import FakeService

THINK = MARKS[0]
ENDS = "<think>", "</think>", "<thi", "</th", "<", ">", "\n", " ", "a", "b c"


def read(pieces: Sequence[str], marks: Marks | None = THINK, *, inside: bool = False) -> tuple[str, str]:
    thinking = Thinking(marks, inside=inside)
    found = [*(thinking.push(piece) for piece in pieces), thinking.finish()]
    return "".join(thought for thought, _ in found), "".join(said for _, said in found)


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>\nwhy\n</think>\n\nbecause", "why", "because"),
        ("\n<think>why</think>because", "why", "because"),
        ("<think>\n\n</think>\n\nbecause", "", "because"),
        ("<think>\none\n\ntwo</think> x </think> y", "one\n\ntwo", "x </think> y"),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("<think>cut off \n", "cut off", ""),
        ("<think>", "", ""),
        ("because", "", "because"),
        (" because", "", " because"),
        ("<thing>", "", "<thing>"),
        ("<thi", "", "<thi"),
        ("so <think>no</think>", "", "so <think>no</think>"),
        ("", "", ""),
    ],
)
def test_reasoning_stands_between_marks_at_the_beginning(text: str, thought: str, said: str) -> None:
    assert read([text]) == (thought, said)
    assert read(list(text)) == (thought, said)


def test_an_answer_may_begin_inside_of_the_reasoning() -> None:
    assert read(["why", "</think>\n\nbecause"], inside=True) == ("why", "because")


def test_without_marks_all_text_is_the_answer() -> None:
    assert read(["<think>a", "</think>b "], None) == ("", "<think>a</think>b ")


@given(st.lists(st.sampled_from(ENDS), max_size=12), st.data(), st.booleans())
def test_the_result_does_not_depend_on_how_the_text_was_cut(
    parts: list[str], data: st.DataObject, inside: bool
) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces, inside=inside) == read([text], inside=inside)


@given(st.text(alphabet="ab \n<"), st.text(alphabet="ab \n<"))
def test_nothing_but_marks_and_white_space_around_them_is_lost(thought: str, said: str) -> None:
    assert read([f"<think>{thought}</think>{said}"]) == (thought.strip(), said.lstrip())


def test_reasoning_is_given_out_as_it_comes_up_to_what_may_be_a_mark() -> None:
    thinking = Thinking(THINK)
    assert [thinking.push(piece) for piece in ("<think>", "\na", " b", " </", "s", "</think>", "c")] == [
        ("", ""),
        ("a", ""),
        (" b", ""),
        ("", ""),
        (" </s", ""),
        ("", ""),
        ("", "c"),
    ]
    assert thinking.answering


@pytest.mark.parametrize(
    ("template", "specials", "marks"),
    [
        ("{{ '<think>' }}", {}, THINK),
        ("{{ content.split('</think>') }}", {}, THINK),
        ("{{ messages }}", {"<think>": 5, "</think>": 6}, THINK),
        (None, {"[THINK]": 5, "[/THINK]": 6}, MARKS[1]),
        ("{{ messages }}", {"<think>": 5}, None),
        ("{{ messages }}", {}, None),
    ],
)
def test_a_models_marks_are_seen_in_its_template_or_vocabulary(
    template: str | None, specials: dict[str, int], marks: Marks | None
) -> None:
    assert marks_of(FakeService(template=template, specials=specials)) == marks
