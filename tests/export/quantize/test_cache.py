"""Scales of an INT8 cache: nothing that the text showed, and no later turn of it, is beyond their reach."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.arch import ModelArch, Positions, Rotary
from export.quantize.cache import Reach, bytes_for, names
from tests import tiny
from tests.export.random_weights import arch_from

Floats = NDArray[np.float32]
ARCH = arch_from(tiny.hf_config())
"""Two heads of 16 keys, all rotated."""

ROTARIES: Mapping[str, Rotary | None] = {
    "all": Rotary(dim=16, base=1e4),
    "a part": Rotary(dim=6, base=1e4),
    "neighbours": Rotary(dim=16, base=1e4, interleaved=True),
    "a part, neighbours": Rotary(dim=6, base=1e4, interleaved=True),
    "none": None,
}
LARGEST = 127
"""The code of the text's largest value."""


def rotated_by(rotary: Rotary | None) -> ModelArch:
    return msgspec.structs.replace(ARCH, rotary=rotary)


def random(rows: int = 3, tokens: int = 5, *, seed: int = 0) -> Floats:
    """Channels of very different sizes [rows, 2, tokens, 16]."""
    draw = np.random.default_rng(seed)
    sizes = np.exp(draw.normal(0, 2, (2, 1, 16)))
    values: Floats = (draw.normal(size=(rows, 2, tokens, 16)) * sizes).astype(np.float32)
    return values


def scales_of(arch: ModelArch, keys: Floats, values: Floats) -> tuple[Floats, Floats]:
    reach = Reach(arch)
    reach.see(0, keys, values)
    found = reach.scales()
    assert set(found) == {"layers.0.k_scale", "layers.0.v_scale"}
    return found["layers.0.k_scale"], found["layers.0.v_scale"]


def turned(keys: Floats, rotary: Rotary, angle: float) -> Floats:
    """Every rotated pair of channels by the same angle, in plain loops."""
    found = keys.copy()
    for pair in range(rotary.dim // 2):
        one, other = (2 * pair, 2 * pair + 1) if rotary.interleaved else (pair, pair + rotary.dim // 2)
        found[..., one] = keys[..., one] * math.cos(angle) - keys[..., other] * math.sin(angle)
        found[..., other] = keys[..., other] * math.cos(angle) + keys[..., one] * math.sin(angle)
    return found


def test_a_value_s_largest_falls_on_the_last_code() -> None:
    values = random()
    _, scales = scales_of(ARCH, random(), values)
    assert scales.shape == (1, 2, 1, 16)
    assert scales.dtype == np.float32
    np.testing.assert_allclose(np.abs(values / scales).max((0, 2)), LARGEST, rtol=1e-5)


@pytest.mark.parametrize("name", ROTARIES)
def test_keys_that_are_not_rotated_are_as_values(name: str) -> None:
    rotary, keys = ROTARIES[name], random()
    scales, _ = scales_of(rotated_by(rotary), keys, keys)
    still = slice(0 if rotary is None else rotary.dim, None)
    largest = np.abs(keys / scales).max((0, 2))[:, still]
    np.testing.assert_allclose(largest, np.full_like(largest, LARGEST), rtol=1e-5)


@given(st.floats(0, 2 * math.pi), st.integers(0, 100), st.sampled_from([name for name in ROTARIES if name != "none"]))
def test_no_position_takes_a_key_beyond_its_scale(angle: float, seed: int, name: str) -> None:
    rotary, keys = ROTARIES[name], random(seed=seed)
    assert rotary is not None
    scales, _ = scales_of(rotated_by(rotary), keys, keys)
    assert np.abs(turned(keys, rotary, angle) / scales).max() <= LARGEST * (1 + 1e-5)


@pytest.mark.parametrize("name", ["all", "neighbours"])
def test_a_pair_s_scale_is_no_larger_than_some_turn_needs(name: str) -> None:
    rotary, keys = ROTARIES[name], random()
    assert rotary is not None
    scales, _ = scales_of(rotated_by(rotary), keys, keys)
    turns = [np.abs(turned(keys, rotary, angle) / scales).max((0, 2)) for angle in np.linspace(0, math.pi, 181)]
    assert np.max(turns, axis=0).min() > 0.999 * LARGEST


def test_rows_seen_apart_are_as_rows_seen_together() -> None:
    keys, values = random(6, seed=1), random(6, seed=2)
    apart, together = Reach(ARCH), Reach(ARCH)
    for part in (slice(0, 1), slice(1, 6)):
        apart.see(0, keys[part], values[part])
    together.see(0, keys, values)
    for name, scales in together.scales().items():
        np.testing.assert_array_equal(apart.scales()[name], scales)


def test_layers_have_scales_and_positions_of_their_own() -> None:
    arch = msgspec.structs.replace(ARCH, local=Positions(), local_layers=(1,))  # the second is not rotated
    keys, reach = random(), Reach(arch)
    for layer in range(2):
        reach.see(layer, keys * (layer + 1), keys)
    found = reach.scales()
    assert set(found) == {*names("layers.0"), *names("layers.1")}
    np.testing.assert_allclose(found["layers.1.k_scale"], 2 * found["layers.1.v_scale"])
    longer = found["layers.0.k_scale"] / found["layers.0.v_scale"]
    assert longer.min() >= 1
    assert longer.mean() > 1.1


@pytest.mark.parametrize("dead", [slice(3, 4), slice(None)], ids=["a channel", "all"])
def test_what_the_text_left_at_zero_can_be_written(dead: slice) -> None:
    values = random()
    values[..., dead] = 0
    _, scales = scales_of(ARCH, random(), values)
    assert np.isfinite(values / scales).all()
    assert (scales > 0).all()
    assert np.isfinite(1 / scales).all()


def test_what_scales_take_is_known_before() -> None:
    arch, reach = msgspec.structs.replace(ARCH, layers=2), Reach(ARCH)
    for layer in range(2):
        reach.see(layer, random(), random())
    assert bytes_for(arch) == sum(scales.nbytes for scales in reach.scales().values())
