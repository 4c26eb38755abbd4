"""A real graph with adapters: each row computes with its own, and without one as if there were none."""

from pathlib import Path

import numpy as np
import pytest

from device_agent.adapters import read
from device_agent.engine.graphs.longrope import LongropeRows
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.rows import Lora
from edgekit.adapter import open_adapter
from edgekit.bundle import open_bundle
from edgekit.errors import CorruptBundle, WrongBase
from tests.device_agent.bundles import ADAPTABLE, COLD, CONCAT, TINY, WARM, copy_to, seal
from tests.device_agent.engine.real import IDS, emptied, opened

BUNDLE = open_bundle(ADAPTABLE)


@pytest.fixture(scope="module")
def loras() -> dict[str, Lora]:
    return {folder.name: read(open_adapter(folder), BUNDLE) for folder in (WARM, COLD)}


@pytest.fixture(scope="module")
def warm(loras: dict[str, Lora]) -> Lora:
    return loras[WARM.name]


@pytest.fixture(scope="module")
def cold(loras: dict[str, Lora]) -> Lora:
    return loras[COLD.name]


@pytest.fixture(scope="module")
def loaded() -> OnnxRows:
    return opened(BUNDLE)


@pytest.fixture
def rows(loaded: OnnxRows) -> OnnxRows:
    for row in range(loaded.most_rows):
        loaded.adapt(row, None)
    return emptied(loaded)


@pytest.mark.parametrize("folder", [WARM, COLD], ids=lambda folder: folder.name)
def test_an_adapter_s_own_golden_tokens_follow(folder: Path, loras: dict[str, Lora], rows: OnnxRows) -> None:
    for golden in open_adapter(folder).manifest.golden:
        rows.truncate(0, 0)
        rows.adapt(0, loras[folder.name])
        found = [int(rows.read(0, golden.prompt)[0].argmax())]
        while len(found) < golden.sure:
            found.append(int(rows.decode({0: found[-1]})[0].argmax()))
        assert tuple(found[: golden.sure]) == golden.tokens[: golden.sure]


def test_without_an_adapter_the_graph_computes_what_the_plain_one_does(rows: OnnxRows, warm: Lora) -> None:
    plain = opened(BUNDLE)
    rows.adapt(1, warm)
    rows.read(1, IDS[:20])
    assert np.array_equal(rows.read(0, IDS[:40], keep=3), plain.read(0, IDS[:40], keep=3))
    assert np.array_equal(rows.decode({0: 5}), plain.decode({0: 5}))


def test_rows_beside_each_other_keep_their_adapters(rows: OnnxRows, warm: Lora, cold: Lora) -> None:
    wanted = {0: warm, 1: None, 2: cold}
    for row, lora in wanted.items():
        rows.adapt(row, lora)
    together = {row: [rows.read(row, IDS[:9])[0].copy()] for row in wanted}
    for token in IDS[9:14]:
        for row in wanted:
            together[row].append(rows.decode({row: token})[0].copy())
    emptied(rows)
    for row, lora in wanted.items():
        rows.truncate(3, 0)
        rows.adapt(3, lora)
        alone = [rows.read(3, IDS[:9])[0].copy(), *(rows.decode({3: token})[0].copy() for token in IDS[9:14])]
        assert np.array_equal(together[row], alone)
    assert not np.allclose(together[0], together[1])
    assert not np.allclose(together[2], together[1])


def test_rows_with_the_same_adapter_decode_together(rows: OnnxRows, warm: Lora) -> None:
    for row in (0, 1):
        rows.adapt(row, warm)
        rows.read(row, IDS[row : 9 + row])
    both = rows.decode({0: 4, 1: 8}).copy()
    for row in (0, 1):
        rows.truncate(row, 9)
        np.testing.assert_allclose(rows.decode({row: (4, 8)[row]})[0], both[row], rtol=1e-3, atol=1e-3)


def test_rows_with_different_adapters_do_not(rows: OnnxRows, warm: Lora) -> None:
    rows.adapt(0, warm)
    rows.read(0, IDS[:9])
    rows.read(1, IDS[:9])
    with pytest.raises(ValueError, match="different adapters"):
        rows.decode({0: 4, 1: 8})
    assert (rows.length(0), rows.length(1)) == (9, 9)


def test_what_is_cached_outlives_the_change_of_graphs(warm: Lora) -> None:
    rows, plain = opened(BUNDLE), opened(BUNDLE)
    rows.read(0, IDS[:30])
    rows.adapt(1, warm)
    plain.read(0, IDS[:30])
    assert np.array_equal(rows.decode({0: 5}), plain.decode({0: 5}))


def test_the_prompt_graph_knows_no_adapters(rows: OnnxRows, warm: Lora) -> None:
    class Spy:
        crossover = 1

        def over(self, cache: object) -> "Spy":
            raise AssertionError("it would be read without its adapter")

    rows.attach(Spy())  # type: ignore[arg-type]  # it is never bound
    rows.adapt(0, warm)
    rows.read(0, IDS[:40])
    with pytest.raises(AssertionError):
        rows.read(1, IDS[:40])


@pytest.mark.parametrize("folder", [TINY, CONCAT], ids=lambda folder: folder.name)
def test_a_bundle_without_that_graph_refuses_clearly(folder: Path, warm: Lora) -> None:
    rows = open_rows(open_bundle(folder), threads=1)
    rows.adapt(0, None)
    with pytest.raises(WrongBase, match="no adapters"):
        rows.adapt(0, warm)
    rows.read(0, [5])


def test_a_longrope_row_hands_its_adapter_on(rows: OnnxRows, warm: Lora) -> None:
    wide = LongropeRows(rows, limit=20)
    wide.adapt(0, warm)
    found = wide.read(0, IDS[:9]).copy()
    assert not np.array_equal(found, rows.read(1, IDS[:9]))
    rows.adapt(2, warm)
    assert np.array_equal(found, rows.read(2, IDS[:9]))


def test_another_graph_in_that_file_is_refused_when_it_is_opened(tmp_path: Path, warm: Lora) -> None:
    folder = copy_to(tmp_path, ADAPTABLE)
    (folder / "model-adapters.onnx").write_bytes((folder / "model.onnx").read_bytes())
    seal(folder)
    rows = opened(open_bundle(folder))
    with pytest.raises(CorruptBundle, match=r"model-adapters\.onnx is not the graph"):
        rows.adapt(0, warm)
    rows.read(0, [5])
