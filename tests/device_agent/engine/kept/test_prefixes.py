import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.kept.prefixes import Entry, Prefixes, common
from device_agent.engine.rows import Snapshot


def entry(text: str, *, pinned: bool = False) -> Entry:
    """Eight bytes a token."""
    return Entry(tuple(text.encode()), Snapshot(len(text), (np.zeros((1, len(text), 1), np.int64),)), pinned)


def kept(*texts: str) -> Prefixes:
    prefixes = Prefixes()
    for text in texts:
        prefixes.put(entry(text))
    return prefixes


def texts(prefixes: Prefixes) -> list[str]:
    return [bytes(ids).decode() for _, ids in prefixes._entries]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_beginning(first: list[int], second: list[int]) -> None:
    size = common(first, second)
    assert first[:size] == second[:size]
    assert first[size : size + 1] != second[size : size + 1] or size == len(first) == len(second)


@pytest.mark.parametrize(
    ("asked", "most", "text", "shared"),
    [
        ("hello world", 10, "hello work", 9),
        ("hello world", 3, "hello work", 3),
        ("hey", 2, "hello work", 2),
        ("other", 4, None, 0),
    ],
)
def test_the_longest_common_beginning_is_found(asked: str, most: int, text: str | None, shared: int) -> None:
    found, size = kept("hello work", "hell", "else").best(asked.encode(), most=most)
    assert (bytes(found.ids).decode() if found else None, size) == (text, shared)


def test_a_text_replaces_its_own_beginnings_and_leaves_others() -> None:
    prefixes = kept("hel", "help", "hello", "hello world")
    assert texts(prefixes) == ["help", "hello world"]
    assert prefixes.nbytes == 8 * 15


def test_the_same_text_again_takes_no_more_memory() -> None:
    prefixes = kept("hello", "hello")
    assert (len(prefixes), prefixes.nbytes) == (1, 40)


@pytest.mark.parametrize(("text", "covered"), [("hel", True), ("hello", True), ("hello!", False), ("x", False)])
def test_beginnings_of_what_is_kept_are_covered(text: str, covered: bool) -> None:
    assert kept("hello", "world").covers(tuple(text.encode())) is covered


def test_what_was_used_least_recently_makes_room() -> None:
    prefixes = kept("aaaa", "bbbb", "cccc")
    found, _ = prefixes.best(b"aaa", most=3)
    assert found
    prefixes.use(found)
    assert prefixes.covers(tuple(b"bb"))  # that is a use, too
    assert prefixes.make_room(40, limit_bytes=104)
    assert texts(prefixes) == ["aaaa", "bbbb"]


def test_what_cannot_fit_at_all_drops_nothing() -> None:
    prefixes = kept("aaaa", "bbbb")
    assert not prefixes.make_room(1000, limit_bytes=999)
    assert len(prefixes) == 2


def test_a_pinned_text_stays_when_room_is_made_and_when_it_is_continued() -> None:
    prefixes = Prefixes()
    prefixes.put(entry("system", pinned=True))
    prefixes.put(entry("system and more"))
    assert prefixes.make_room(0, limit_bytes=60)
    assert texts(prefixes) == ["system"]
    assert not prefixes.make_room(20, limit_bytes=60)
    prefixes.put(entry("system", pinned=True))
    assert prefixes.nbytes == 48


def test_dropping_twice_is_harmless() -> None:
    prefixes, one = kept(), entry("one")
    prefixes.put(one)
    prefixes.drop(one)
    prefixes.drop(one)
    prefixes.use(one)
    assert (len(prefixes), prefixes.nbytes) == (0, 0)
