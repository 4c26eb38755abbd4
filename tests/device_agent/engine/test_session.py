"""The decoder over a real graph: however the tokens are fed, the logits are the same."""

from pathlib import Path

import numpy as np
import pytest

from device_agent.engine.cache import FIRST_CAPACITY_TOKENS
from device_agent.engine.concat import ConcatDecoder
from device_agent.engine.session import OnnxDecoder, open_decoder, open_embedder
from device_agent.model import read_tokenizer
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import BundleError, CorruptBundle, UsageError
from tests.device_agent.bundles import CONCAT, CONTEXT, ENCODER, INT8, TINY, VOCAB, copy_to, set_fields

IDS = [(7919 * i + 13) % VOCAB for i in range(CONTEXT)]


TOLERANCES = {TINY: 1e-4, INT8: 2e-2}
"""Of the largest logit. The order of a sum decides the code of a value in the middle between two."""


@pytest.fixture(scope="module", params=TOLERANCES, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return open_bundle(folder)


def opened(bundle: Bundle) -> OnnxDecoder:
    decoder = open_decoder(bundle, threads=1)
    assert isinstance(decoder, OnnxDecoder)
    return decoder


@pytest.fixture
def decoder(bundle: Bundle) -> OnnxDecoder:
    return opened(bundle)


def test_buffers_start_small(decoder: OnnxDecoder) -> None:
    assert {buffer.shape[2] for buffer in decoder._cache.buffers} == {FIRST_CAPACITY_TOKENS}
    assert decoder.length == 0
    assert decoder.context_tokens == CONTEXT


def test_logits_are_those_of_the_last_token(decoder: OnnxDecoder) -> None:
    logits = decoder.step(IDS[:5])
    assert logits.shape == (VOCAB,)
    assert logits.dtype == np.float32
    assert decoder.length == 5


def test_growth_changes_no_logit(decoder: OnnxDecoder, bundle: Bundle) -> None:
    roomy = opened(bundle)
    roomy._cache.reserve(CONTEXT)
    roomy._mask = np.ones((1, CONTEXT), np.int64)
    roomy._bind_cache()
    for start in range(0, 1100, 110):  # past 256, 512 and 1,024
        grown = decoder.step(IDS[start : start + 110]).copy()
        assert np.array_equal(grown, roomy.step(IDS[start : start + 110]))
    assert decoder._cache.capacity == CONTEXT


@pytest.mark.parametrize("sizes", [(1, 39), (39, 1), (20, 20), (1,) * 40, (7, 13, 1, 1, 18)])
def test_a_prompt_in_chunks_gives_the_logits_of_one_pass(
    decoder: OnnxDecoder, bundle: Bundle, folder: Path, sizes: tuple[int, ...]
) -> None:
    whole = open_decoder(bundle, threads=1).step(IDS[:40]).copy()
    *_, last = (decoder.step(IDS[decoder.length : decoder.length + size]) for size in sizes)
    np.testing.assert_allclose(last, whole, rtol=0, atol=TOLERANCES[folder] * float(np.abs(whole).max()))


def test_a_text_said_to_be_longer_is_read_the_same_where_length_does_not_matter(
    decoder: OnnxDecoder, bundle: Bundle
) -> None:
    fresh = open_decoder(bundle, threads=1)
    for start, stop in ((0, 20), (20, 21), (21, 300)):  # 400 tokens are more than the buffers hold at first
        wide = decoder.step(IDS[start:stop], width=400).copy()
        np.testing.assert_allclose(wide, fresh.step(IDS[start:stop]), rtol=0, atol=1e-4)
        assert decoder.length == stop


def test_truncating_and_going_on_equals_a_fresh_run(decoder: OnnxDecoder, bundle: Bundle) -> None:
    decoder.step(IDS[:300])
    decoder.truncate(10)
    again = decoder.step(IDS[100:120]).copy()
    fresh = open_decoder(bundle, threads=1)
    fresh.step(IDS[:10])
    assert np.array_equal(again, fresh.step(IDS[100:120]))


def test_what_was_truncated_to_nothing_leaves_no_trace(decoder: OnnxDecoder) -> None:
    first = decoder.step(IDS[:20]).copy()
    decoder.step(IDS[20:400])
    decoder.truncate(0)
    assert np.array_equal(decoder.step(IDS[:20]), first)


def test_every_token_matters(decoder: OnnxDecoder) -> None:
    first = decoder.step(IDS[:20]).copy()
    decoder.truncate(0)
    assert not np.array_equal(decoder.step([IDS[0] + 1, *IDS[1:20]]), first)


@pytest.mark.parametrize("length", [-1, 6])
def test_only_what_is_there_can_be_kept(decoder: OnnxDecoder, length: int) -> None:
    decoder.step(IDS[:5])
    with pytest.raises(ValueError, match="cannot keep"):
        decoder.truncate(length)


def test_the_context_can_be_filled_and_not_overrun(decoder: OnnxDecoder) -> None:
    decoder.step(IDS)
    assert decoder._cache.capacity == CONTEXT
    with pytest.raises(ValueError, match="do not fit"):
        decoder.step([1])
    assert decoder.length == CONTEXT


def test_no_tokens_are_refused(decoder: OnnxDecoder) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        decoder.step([])


@pytest.mark.parametrize("token_id", [-1, VOCAB, 1 << 40])
def test_ids_outside_of_the_vocabulary_never_reach_the_graph(decoder: OnnxDecoder, token_id: int) -> None:
    with pytest.raises(ValueError, match="token ids"):
        decoder.step([1, token_id])
    assert decoder.length == 0


def test_an_int8_cache_takes_a_quarter() -> None:
    floats, codes = (opened(open_bundle(folder))._cache.buffers for folder in (TINY, INT8))
    assert sum(buffer.nbytes for buffer in codes) * 4 == sum(buffer.nbytes for buffer in floats)


@pytest.mark.parametrize(("source", "cache"), [(TINY, "int8"), (INT8, "float32")])
def test_a_cache_of_another_type_than_the_manifest_s_is_refused(source: Path, cache: str, tmp_path: Path) -> None:
    folder = copy_to(tmp_path, source)
    set_fields(cache=cache)(folder)
    with pytest.raises(CorruptBundle, match="past_key_values"):
        open_decoder(open_bundle(folder), threads=1)


def test_a_failing_step_is_a_bundle_error_and_appends_nothing(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    set_fields(arch__context=1 << 20)(folder)  # more positions than the graph has rotations for
    decoder = open_decoder(open_bundle(folder), threads=1)
    decoder.step(IDS[:5])
    with pytest.raises(BundleError, match="cannot compute"):
        decoder.step(IDS)
    assert decoder.length == 5


def test_a_file_that_is_no_graph_is_a_corrupt_bundle(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    graph = folder / "model.onnx"
    bundle = open_bundle(folder)
    graph.write_bytes(b"\x08\x0a" + b"\0" * (graph.stat().st_size - 2))
    with pytest.raises(CorruptBundle, match="cannot load"):
        open_decoder(bundle, threads=1)


@pytest.mark.parametrize("threads", [0, -1])
def test_at_least_one_thread_is_needed(bundle: Bundle, threads: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        open_decoder(bundle, threads=threads)


# --- a cache that grows by copying ----------------------------------------------------------

CONCAT_CONTEXT = 256


@pytest.fixture(scope="module")
def other() -> Bundle:
    return open_bundle(CONCAT)


def test_the_manifest_chooses_the_decoder(other: Bundle) -> None:
    assert isinstance(open_decoder(other, threads=1), ConcatDecoder)


@pytest.mark.parametrize("sizes", [(1, 39), (39, 1), (20, 20), (1,) * 40, (7, 13, 1, 1, 18)])
def test_a_copied_cache_gives_the_logits_of_one_pass(other: Bundle, sizes: tuple[int, ...]) -> None:
    whole = open_decoder(other, threads=1).step(IDS[:40]).copy()
    decoder = open_decoder(other, threads=1)
    *_, last = (decoder.step(IDS[decoder.length : decoder.length + size]) for size in sizes)
    assert last.shape == (VOCAB,)
    np.testing.assert_allclose(last, whole, rtol=0, atol=1e-4 * float(np.abs(whole).max()))


@pytest.mark.parametrize("kept", [0, 1, 10, 30])
def test_forgetting_a_copied_cache_equals_a_fresh_run(other: Bundle, kept: int) -> None:
    decoder, fresh = open_decoder(other, threads=1), open_decoder(other, threads=1)
    decoder.step(IDS[:30])
    decoder.truncate(kept)
    if kept:
        fresh.step(IDS[:kept])
    again, expected = decoder.step(IDS[100:120]), fresh.step(IDS[100:120])
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


def test_a_copied_cache_can_fill_the_context_and_not_overrun_it(other: Bundle) -> None:
    decoder = open_decoder(other, threads=1)
    assert decoder.context_tokens == CONCAT_CONTEXT
    decoder.step(IDS[:CONCAT_CONTEXT])
    with pytest.raises(ValueError, match="do not fit"):
        decoder.step([1])
    assert decoder.length == CONCAT_CONTEXT


def test_a_failing_step_over_a_copied_cache_is_a_bundle_error_and_appends_nothing(tmp_path: Path) -> None:
    folder = copy_to(tmp_path, CONCAT)
    set_fields(arch__context=1 << 20)(folder)  # more positions than the graph has embeddings for
    decoder = open_decoder(open_bundle(folder), threads=1)
    decoder.step(IDS[:5])
    with pytest.raises(BundleError, match="cannot compute"):
        decoder.step(IDS[:1000])
    assert decoder.length == 5
    decoder.step(IDS[5:6])


def test_a_model_is_opened_for_what_it_is_for(other: Bundle) -> None:
    encoder = open_bundle(ENCODER)
    with pytest.raises(UsageError, match="edgekit embed"):
        open_decoder(encoder, threads=1)
    with pytest.raises(UsageError, match="edgekit generate"):
        open_embedder(other, read_tokenizer(other), threads=1)
    with pytest.raises(UsageError, match="at least one"):
        open_embedder(encoder, read_tokenizer(encoder), threads=0)
