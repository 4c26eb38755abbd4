"""Opening a bundle's graph: for what it is for, only if it is what the manifest says, with the right kind of rows."""

from pathlib import Path

import numpy as np
import pytest

from device_agent.engine.graphs.concat import ConcatRows
from device_agent.engine.graphs.session import open_embedder, open_prompt_graph, open_rows
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.loader import read_tokenizer
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import BundleError, CorruptBundle, UsageError
from tests.device_agent.bundles import CONCAT, CONTEXT, ENCODER, INT8, TINY, VOCAB, copy_to, set_fields

IDS = [(7919 * i + 13) % VOCAB for i in range(CONTEXT)]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(TINY)


def test_there_are_as_many_rows_as_asked_for(bundle: Bundle) -> None:
    rows = open_rows(bundle, threads=1, most_rows=5)
    assert isinstance(rows, OnnxRows)
    assert (rows.most_rows, rows.context_tokens) == (5, CONTEXT)
    assert open_rows(bundle, threads=1).most_rows == 8
    assert rows.bytes_per_token == 4 * bundle.manifest.arch.kv_values_per_token
    assert open_rows(open_bundle(INT8), threads=1).bytes_per_token * 4 == rows.bytes_per_token


def test_a_conversation_goes_on_on_other_threads(bundle: Bundle) -> None:
    first, whole = open_rows(bundle, threads=1), open_rows(bundle, threads=1)
    first.read(2, IDS[:300])
    whole.read(2, IDS[:300])
    second = open_rows(bundle, threads=2, previous=first)
    assert isinstance(first, OnnxRows)
    assert isinstance(second, OnnxRows)
    assert second.cache is first.cache, "nothing is copied"
    np.testing.assert_allclose(second.decode({2: 7}), whole.decode({2: 7}), rtol=0, atol=1e-4)


@pytest.mark.parametrize("previous", [TINY, CONCAT], ids=["of another number", "of another kind"])
def test_rows_of_another_kind_are_not_taken_over(previous: Path, bundle: Bundle) -> None:
    others = open_rows(open_bundle(previous), threads=1, most_rows=2)
    others.read(0, IDS[:5])
    assert open_rows(bundle, threads=1, most_rows=3, previous=others).length(0) == 0


@pytest.mark.parametrize(("source", "cache"), [(TINY, "int8"), (INT8, "float32")])
def test_a_cache_of_another_type_than_the_manifest_s_is_refused(source: Path, cache: str, tmp_path: Path) -> None:
    folder = copy_to(tmp_path, source)
    set_fields(cache=cache)(folder)
    with pytest.raises(CorruptBundle, match="past_key_values"):
        open_rows(open_bundle(folder), threads=1)


def test_a_file_that_is_no_graph_is_a_corrupt_bundle(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    graph = folder / "model.onnx"
    bundle = open_bundle(folder)
    graph.write_bytes(b"\x08\x0a" + b"\0" * (graph.stat().st_size - 2))
    with pytest.raises(CorruptBundle, match=r"cannot load model\.onnx"):
        open_rows(bundle, threads=1)


def test_a_graph_that_makes_logits_is_no_prompt_graph(bundle: Bundle) -> None:
    with pytest.raises(CorruptBundle, match=r"model\.onnx is not the graph"):
        open_prompt_graph(TINY / "model.onnx", bundle, threads=1, crossover=8)


@pytest.mark.parametrize("threads", [0, -1])
def test_at_least_one_thread_is_needed(bundle: Bundle, threads: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        open_rows(bundle, threads=threads)
    with pytest.raises(UsageError, match="at least one"):
        open_prompt_graph(TINY / "model.onnx", bundle, threads=threads, crossover=8)


# --- a cache that grows by copying ----------------------------------------------------------

CONCAT_CONTEXT = 256


@pytest.fixture(scope="module")
def other() -> Bundle:
    return open_bundle(CONCAT)


def close_to(expected: np.ndarray) -> float:
    return 1e-4 * float(np.abs(expected).max())


def test_the_manifest_chooses_the_rows(other: Bundle) -> None:
    rows = open_rows(other, threads=1)
    assert isinstance(rows, ConcatRows)
    assert rows.most_rows == 1


@pytest.mark.parametrize("sizes", [(1, 39), (39, 1), (20, 20), (1,) * 40, (7, 13, 1, 1, 18)])
def test_a_copied_cache_gives_the_logits_of_one_pass(other: Bundle, sizes: tuple[int, ...]) -> None:
    whole = open_rows(other, threads=1).read(0, IDS[:40], keep=40).copy()
    rows, start = open_rows(other, threads=1), 0
    for size in sizes:
        found = rows.read(0, IDS[start : start + size], keep=size)
        assert found.shape == (size, VOCAB)
        np.testing.assert_allclose(found, whole[start : start + size], rtol=0, atol=close_to(whole))
        start += size


@pytest.mark.parametrize("kept", [0, 1, 10, 30])
def test_forgetting_a_copied_cache_equals_a_fresh_run(other: Bundle, kept: int) -> None:
    rows, fresh = open_rows(other, threads=1), open_rows(other, threads=1)
    rows.read(0, IDS[:30])
    snapshot = rows.snapshot(0, kept)
    rows.truncate(0, kept)
    if kept:
        fresh.read(0, IDS[:kept])
    again, expected = rows.read(0, IDS[100:120]), fresh.read(0, IDS[100:120])
    np.testing.assert_allclose(again, expected, rtol=0, atol=close_to(expected))
    rows.restore(0, snapshot)
    assert np.array_equal(rows.read(0, IDS[100:120]), again)


def test_a_copied_cache_can_fill_the_context_and_not_overrun_it(other: Bundle) -> None:
    rows = open_rows(other, threads=1)
    assert rows.context_tokens == CONCAT_CONTEXT
    rows.read(0, IDS[:CONCAT_CONTEXT])
    with pytest.raises(ValueError, match="do not fit"):
        rows.decode({0: 1})
    assert rows.length(0) == CONCAT_CONTEXT


def test_a_failing_step_over_a_copied_cache_is_a_bundle_error_and_appends_nothing(tmp_path: Path) -> None:
    folder = copy_to(tmp_path, CONCAT)
    set_fields(arch__context=1 << 20)(folder)  # more positions than the graph has embeddings for
    rows = open_rows(open_bundle(folder), threads=1)
    rows.read(0, IDS[:5])
    with pytest.raises(BundleError, match="cannot compute"):
        rows.read(0, IDS[:1000])
    assert rows.length(0) == 5
    rows.read(0, IDS[5:6])


def test_a_model_is_opened_for_what_it_is_for(other: Bundle) -> None:
    encoder = open_bundle(ENCODER)
    with pytest.raises(UsageError, match="edgekit embed"):
        open_rows(encoder, threads=1)
    with pytest.raises(UsageError, match="edgekit generate"):
        open_embedder(other, read_tokenizer(other), threads=1)
    with pytest.raises(UsageError, match="at least one"):
        open_embedder(encoder, read_tokenizer(encoder), threads=0)
