from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit import contract
from edgekit.arch import ModelArch
from export.graph import decoder
from export.quantize import plan as planning
from export.quantize import selftext
from export.quantize.plan import Recipe
from tests import tiny
from tests.export.exports import Decoder
from tests.export.families.cases import falcon, gemma3_text, gpt2, phi3
from tests.export.random_weights import RandomWeights, arch_from, as_weights

Ids = NDArray[np.int64]
LENGTH = 24


def written(folder: Path, arch: ModelArch) -> Path:
    """A float graph with random weights."""
    weights = as_weights(RandomWeights(arch))
    plan = planning.plan(arch, Recipe("fp32"), weights)
    decoder.save(folder, arch, plan, weights, lambda each: planning.quantise(each, weights), lambda _: None)
    return folder / contract.MODEL_FILE


@pytest.fixture(scope="module")
def arch() -> ModelArch:
    return arch_from(tiny.hf_config())


@pytest.fixture(scope="module")
def graph(arch: ModelArch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("graph"), arch)


def write(graph: Path, arch: ModelArch, starts: Sequence[Sequence[int]], *, length: int = LENGTH, seed: int = 0) -> Ids:
    return selftext.write(graph, arch, starts, length, seed=seed, advance=lambda *_: None)


def test_the_same_seed_writes_the_same_text_and_another_another(graph: Path, arch: ModelArch) -> None:
    starts = [[1, 5], [1, 9]]
    first = write(graph, arch, starts)
    np.testing.assert_array_equal(first, write(graph, arch, starts))
    assert (first != write(graph, arch, starts, seed=1))[:, 2:].any(axis=1).all()


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33])
def test_every_row_begins_with_its_start_and_stays_within_the_vocabulary(
    rows: int, graph: Path, arch: ModelArch
) -> None:
    starts = [[1, 3 + row] for row in range(rows)]
    text = write(graph, arch, starts)
    assert text.shape == (rows, LENGTH)
    assert text[:, :2].tolist() == starts
    assert text.min() >= 0
    assert text.max() < arch.vocab


def test_starts_of_several_lengths_are_all_kept_whole(graph: Path, arch: ModelArch) -> None:
    starts = [[7], [1, 2, 3, 4, 5, 6], [9], [1, 2, 3, 4, 5, 8], [4, 4, 4]]
    text = write(graph, arch, starts)
    for row, start in zip(text, starts, strict=True):
        assert row[: len(start)].tolist() == start


def test_a_start_longer_than_the_row_is_cut(graph: Path, arch: ModelArch) -> None:
    start = list(range(3, 3 + LENGTH + 5))
    assert write(graph, arch, [start, start[:LENGTH]]).tolist() == [start[:LENGTH]] * 2


@pytest.mark.parametrize("rows", [1, 20])
def test_progress_counts_tokens_up_to_all(rows: int, graph: Path, arch: ModelArch) -> None:
    heard: list[tuple[int, int]] = []
    starts = [[1, 5]] * rows
    selftext.write(graph, arch, starts, LENGTH, seed=0, advance=lambda *each: heard.append(each))
    assert [done for done, _ in heard] == [count * LENGTH for count in ([1] if rows == 1 else [16, 20])]
    assert {total for _, total in heard} == {rows * LENGTH}


CASES = {
    "llama": tiny.hf_config(),
    "ALiBi": next(iter(falcon.CASES.values())),
    "windows": next(iter(gemma3_text.CASES.values())),
    "learned positions": next(iter(gpt2.CASES.values())),
    "longrope beyond its limit": phi3.CASES["longrope, long"],
}


@pytest.mark.parametrize("name", CASES)
def test_each_token_is_drawn_after_all_before_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the likeliest token in place of a random one, rows are the greedy continuations of their starts."""
    arch = arch_from(CASES[name])
    graph = written(tmp_path, arch)
    monkeypatch.setattr(selftext, "_drawn", lambda logits, _: logits.argmax(-1))
    starts = [[1, 5, 77], [1, 210, 3]]
    found = write(graph, arch, starts)
    alone = Decoder(tmp_path, arch)
    assert found.tolist() == [[*start, *alone.greedy(start, LENGTH - 3)] for start in starts]


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    shares = np.array([[0.5, 0.2, 0.0001, 0.2999], [0.0001, 0.0001, 0.9997, 0.0001], [0.5, 0.2, 0.0001, 0.2999]])
    random = np.random.default_rng(0)
    draws = np.stack([selftext._drawn((np.log(shares) + 50).astype(np.float32), random) for _ in range(4000)])
    for row, expected in enumerate(shares):
        np.testing.assert_allclose(np.bincount(draws[:, row], minlength=4) / len(draws), expected, atol=0.03)
    assert (draws[:, 0] != draws[:, 2]).any()  # each row has a draw of its own


@pytest.mark.parametrize("logits", [[-1e30, 0.0, -1e30], [-np.inf, 80.0, -np.inf]], ids=["far apart", "infinite"])
def test_an_impossible_token_is_never_drawn(logits: list[float]) -> None:
    random = np.random.default_rng(0)
    row = np.array([logits], np.float32)
    assert {int(selftext._drawn(row, random)[0]) for _ in range(200)} == {1}


def test_every_second_start_is_a_user_s_turn() -> None:
    starts = selftext.starts_for(6, vocab=[40, 41, 42], before=[1], chat=[7, 8, 9], seed=0)
    assert [start[:-1] for start in starts] == [[1], [7, 8, 9]] * 3
    assert {start[-1] for start in starts} <= {40, 41, 42}


def test_without_a_template_all_starts_are_plain_and_differ() -> None:
    starts = selftext.starts_for(50, vocab=range(1000), before=[1], chat=None, seed=0)
    assert {tuple(start[:-1]) for start in starts} == {(1,)}
    assert len({start[-1] for start in starts}) > 40
    assert starts == selftext.starts_for(50, vocab=range(1000), before=[1], chat=None, seed=0)
