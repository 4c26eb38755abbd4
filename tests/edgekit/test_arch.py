"""Facts that contradict each other are refused; sizes are those of the tensors."""

import msgspec
import pytest

from edgekit.arch import MAX_DIMENSION, ModelArch, RopeScaling, Rotary

ARCH = ModelArch(
    model_type="llama",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=96,
    vocab=300,
    context=256,
    norm_eps=1e-5,
    rotary=Rotary(dim=16, base=10_000.0),
    activation="silu",
    tied=True,
)


@pytest.mark.parametrize(
    "name", ["layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context"]
)
@pytest.mark.parametrize("value", [0, -1, MAX_DIMENSION, 1 << 62])
def test_a_dimension_outside_its_bounds_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        msgspec.structs.replace(ARCH, **{name: value})


def test_heads_must_divide_evenly_among_key_value_heads() -> None:
    with pytest.raises(ValueError, match="4 heads"):
        msgspec.structs.replace(ARCH, kv_heads=3)


@pytest.mark.parametrize("dim", [0, -2, 15, 18])
def test_rotary_width_must_be_even_and_within_the_head(dim: int) -> None:
    with pytest.raises(ValueError, match="rotary"):
        msgspec.structs.replace(ARCH, rotary=Rotary(dim=dim, base=1e4))


def test_a_partial_rotary_is_allowed() -> None:
    partial = Rotary(dim=4, base=1e4)
    assert msgspec.structs.replace(ARCH, rotary=partial).rotary == partial


def test_a_token_of_context_adds_its_keys_and_values() -> None:
    assert ARCH.kv_values_per_token == 2 * 2 * 2 * 16


@pytest.mark.parametrize(("tied", "tables"), [(True, 1), (False, 2)])
def test_parameters_count_every_matrix_once(*, tied: bool, tables: int) -> None:
    query_and_output, key_and_value, gate_up_down, norms = 2 * 64 * 64, 2 * 64 * 32, 3 * 64 * 96, 2 * 64
    layers = 2 * (query_and_output + key_and_value + gate_up_down + norms)
    arch = msgspec.structs.replace(ARCH, tied=tied)
    assert arch.parameters == layers + 64 + tables * 300 * 64


def test_an_arch_comes_back_from_json_as_it_went() -> None:
    arch = msgspec.structs.replace(ARCH, rotary=Rotary(dim=16, base=5e5, scaling=RopeScaling(kind="llama3", factor=8)))
    assert msgspec.json.decode(msgspec.json.encode(arch), type=ModelArch) == arch


def test_the_same_checks_hold_for_json() -> None:
    with pytest.raises(msgspec.ValidationError, match="layers"):
        msgspec.json.decode(msgspec.json.encode(ARCH).replace(b'"layers":2', b'"layers":0'), type=ModelArch)


@pytest.mark.parametrize(("kind", "limit"), [("longrope", 40), ("yarn", None)])
def test_only_longrope_has_a_length_beyond_which_it_rotates_differently(kind: str, limit: int | None) -> None:
    scaling = RopeScaling(kind=kind, original_context=40)  # type: ignore[arg-type]
    rotary = Rotary(dim=16, base=10_000.0, scaling=scaling)
    assert msgspec.structs.replace(ARCH, rotary=rotary).rotary_limit == limit
    assert ARCH.rotary_limit is None
    assert msgspec.structs.replace(ARCH, rotary=None).rotary_limit is None
