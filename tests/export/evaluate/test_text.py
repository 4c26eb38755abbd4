from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.errors import UsageError
from export.evaluate.text import Count, Window, compare, cut, read_ids
from tests import tiny
from tests.export.silent import Heard

BOS = 1000


@dataclass(frozen=True)
class Cut:
    name: str
    ids: int
    window: int
    bos: int | None
    count: Count
    windows: tuple[tuple[list[int], list[int], int], ...]


CUTS = (
    Cut("plain", 7, 3, None, Count.ALL, (([0, 1, 2], [1, 2, 3], 0), ([3, 4, 5], [4, 5, 6], 0))),
    Cut("a rest", 6, 3, None, Count.ALL, (([0, 1, 2], [1, 2, 3], 0), ([3, 4], [4, 5], 0))),
    Cut("shorter than a window", 3, 8, None, Count.ALL, (([0, 1], [1, 2], 0),)),
    Cut("begins with BOS", 5, 3, BOS, Count.ALL, (([BOS, 0, 1], [0, 1, 2], 0), ([BOS, 3], [3, 4], 0))),
    Cut(
        "second half",
        10,
        4,
        None,
        Count.SECOND_HALF,
        (([0, 1, 2, 3], [1, 2, 3, 4], 2), ([4, 5, 6, 7], [5, 6, 7, 8], 2)),
    ),
    Cut("second half with BOS", 7, 4, BOS, Count.SECOND_HALF, (([BOS, 0, 1, 2], [0, 1, 2, 3], 2),)),
)


@pytest.mark.parametrize("case", CUTS, ids=lambda case: case.name)
def test_windows_are_cut_as_told(case: Cut) -> None:
    made = cut(range(case.ids), window=case.window, bos=case.bos, count=case.count)
    assert [(list(w.ids), list(w.targets), w.first) for w in made] == list(case.windows)


@given(st.integers(2, 60), st.integers(2, 20), st.sampled_from([None, BOS]))
def test_every_token_is_predicted_once_from_what_precedes_it(count: int, window: int, bos: int | None) -> None:
    made = cut(range(count), window=window, bos=bos)
    assert [target for each in made for target in each.targets] == list(range(0 if bos else 1, count))
    for each in made:
        assert len(each.ids) == len(each.targets) <= window
        before = [BOS if bos and at == 0 else each.targets[at] - 1 for at in range(len(each.targets))]
        assert list(each.ids) == before


@pytest.mark.parametrize(("ids", "count"), [(0, Count.ALL), (1, Count.ALL), (8, Count.SECOND_HALF)])
def test_a_text_with_nothing_to_predict_is_refused(ids: int, count: Count) -> None:
    with pytest.raises(UsageError, match=f"only {ids} tokens: too short for a window of 8"):
        cut(range(ids), window=8, bos=None, count=count)


class Fixed:
    """Logits that are given, a window at a time; `log` says who was asked when."""

    def __init__(self, logits: Sequence[NDArray[np.float32]], name: str = "", log: list[str] | None = None) -> None:
        self._logits, self._name, self._log = logits, name, [] if log is None else log

    def windows(self, windows: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        for number, _ in enumerate(windows):
            self._log.append(f"{self._name}{number}")
            yield self._logits[number]


def logits(*rows: Sequence[float]) -> NDArray[np.float32]:
    """Of probabilities, and shifted: only differences of logits mean anything."""
    return np.log(np.asarray(rows, np.float32)) + np.float32(3)


def test_known_logits_give_known_numbers() -> None:
    source = logits([0.5, 0.25, 0.25], [0.1, 0.1, 0.8])
    found = logits([0.25, 0.5, 0.25], [0.1, 0.1, 0.8])
    windows = [Window((9, 0), (0, 2))]
    result = compare(Fixed([found]), Fixed([source]), windows, Heard())
    assert result.tokens == 2
    assert result.perplexity == pytest.approx((0.25 * 0.8) ** -0.5)
    assert result.reference_perplexity == pytest.approx((0.5 * 0.8) ** -0.5)
    assert result.kl == pytest.approx((0.5 * np.log(2) + 0.25 * np.log(0.5)) / 2, rel=1e-5)
    assert result.same_top_token == 0.5


def test_without_a_reference_there_is_only_a_perplexity() -> None:
    result = compare(Fixed([logits([0.5, 0.5])]), None, [Window((0,), (1,))], Heard())
    assert result.tokens == 1
    assert result.perplexity == pytest.approx(2)
    assert (result.reference_perplexity, result.kl, result.same_top_token) == (None, None, None)


def test_a_long_window_counts_like_its_rows() -> None:
    random = np.random.default_rng(0)
    found, source = random.normal(size=(2, 50, 30)).astype(np.float32)
    targets = tuple(random.integers(0, 30, 50).tolist())
    result = compare(Fixed([found]), Fixed([source]), [Window((0,) * 50, targets, first=7)], Heard())
    p, q = (np.exp(x[7:].astype(np.float64)) for x in (source, found))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    assert result.tokens == 43
    assert result.kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-6)
    assert result.perplexity == pytest.approx(np.exp(-np.log(q[range(43), targets[7:]]).mean()), rel=1e-6)
    assert result.same_top_token == pytest.approx((p.argmax(-1) == q.argmax(-1)).mean())


def test_both_sides_are_asked_window_by_window() -> None:
    log: list[str] = []
    one = [logits([0.5, 0.5])] * 3
    heard = Heard()
    compare(Fixed(one, "bundle ", log), Fixed(one, "source ", log), [Window((0,), (1,))] * 3, heard)
    assert [entry[-1] for entry in log] == ["0", "0", "1", "1", "2", "2"]
    assert heard.advances == [(1, 3), (2, 3), (3, 3)]


def test_a_hopeless_model_has_a_finite_perplexity() -> None:
    result = compare(Fixed([np.asarray([[0, 5000]], np.float32)]), None, [Window((0,), (0,))], Heard())
    assert np.isfinite(result.perplexity)


TEXT = "the hello and then 12 in on <|im_end|> Über\n\n" * 40


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_a_limit_takes_the_beginning_of_the_whole_text(limit: int, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    whole = read_ids(file, tiny.tokenizer(), None)
    assert len(whole) > 1000
    assert read_ids(file, tiny.tokenizer(), limit) == whole[:limit]


def test_a_text_of_dense_tokens_is_read_on_until_there_are_enough(tmp_path: Path) -> None:
    """Spaces that the tokenizer joins would otherwise leave too few."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([" " * 64])
    file = tmp_path / "text.txt"
    file.write_text(" " * 64 * 5000, encoding="utf-8")
    assert len(read_ids(file, tokenizer, 2000)) == 2000


def test_control_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("<|im_end|>", encoding="utf-8")
    ids = read_ids(file, tiny.tokenizer(), None)
    assert tiny.IM_END not in ids
    assert len(ids) > 5


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe\x00", "not UTF-8"), (None, "no such file")])
def test_a_text_that_cannot_be_read_is_one_error(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_ids(file, tiny.tokenizer(), None)
