"""The KV cache's size: as much as is needed, little more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.cache import FIRST_CAPACITY_TOKENS, KVCache, capacity_for
from edgekit.arch import ModelArch, Rotary
from edgekit.contract import CACHE_TYPES, CacheType

ARCH = ModelArch(
    model_type="llama",
    layers=3,
    hidden=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    intermediate=8,
    vocab=10,
    context=1000,
    norm_eps=1e-5,
    rotary=Rotary(dim=4, base=10_000.0),
    activation="silu",
    tied=True,
)


@given(st.integers(1, 1 << 20), st.data())
def test_a_capacity_holds_what_is_needed_and_never_exceeds_the_context(context: int, data: st.DataObject) -> None:
    current = data.draw(st.integers(0, context))
    needed = data.draw(st.integers(1, context))
    capacity = capacity_for(needed, current, context)
    assert max(needed, current) <= capacity <= context
    assert capacity_for(needed, capacity, context) == capacity, "once there is room, it stays"


@given(st.integers(1, 1 << 20))
def test_growing_token_by_token_copies_less_than_the_final_cache(context: int) -> None:
    capacity, copied = 0, 0
    while capacity < context:
        copied += capacity
        capacity = capacity_for(capacity + 1, capacity, context)
    assert copied <= capacity * 2


def test_a_new_cache_is_small() -> None:
    cache = KVCache(ARCH)
    assert cache.capacity == FIRST_CAPACITY_TOKENS
    assert [buffer.shape for buffer in cache.buffers] == [(1, 1, FIRST_CAPACITY_TOKENS, 4)] * 6


def test_reserving_says_whether_the_buffers_are_new() -> None:
    cache = KVCache(ARCH)
    before = cache.buffers
    assert not cache.reserve(FIRST_CAPACITY_TOKENS)
    assert cache.buffers is before
    assert cache.reserve(FIRST_CAPACITY_TOKENS + 1)
    assert cache.capacity == 2 * FIRST_CAPACITY_TOKENS
    assert cache.reserve(900)
    assert cache.capacity == ARCH.context


@pytest.mark.parametrize("kind", CACHE_TYPES)
def test_growth_keeps_the_values_and_only_those(kind: CacheType) -> None:
    cache = KVCache(ARCH, kind)
    for number, buffer in enumerate(cache.buffers):
        buffer[:] = number + 1
    cache.length = 7
    cache.reserve(300)
    for number, buffer in enumerate(cache.buffers):
        assert (buffer[:, :, :7] == number + 1).all()
        assert not np.count_nonzero(buffer[:, :, 7:])
        assert buffer.dtype == kind


def test_an_int8_cache_takes_a_quarter() -> None:
    floats, codes = (sum(buffer.nbytes for buffer in KVCache(ARCH, kind).buffers) for kind in CACHE_TYPES)
    assert floats == FIRST_CAPACITY_TOKENS * ARCH.kv_values_per_token * 4
    assert codes * 4 == floats
