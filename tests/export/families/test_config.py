import pytest

from edgekit.errors import UnsupportedCheckpoint
from export.families.config import Config


@pytest.mark.parametrize("value", ["12", 1.5, True, [12]])
def test_a_whole_number_is_nothing_else(value: object) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="hidden_size in its configuration is"):
        Config({"hidden_size": value}).integer("hidden_size")


@pytest.mark.parametrize("value", ["1", True, 0, -1.0, float("nan"), float("inf"), 10**400])
def test_a_number_is_positive_and_finite(value: object) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="rope_theta in its configuration is"):
        Config({"rope_theta": value}).number("rope_theta")


@pytest.mark.parametrize("value", ["true", 1, 0])
def test_a_flag_is_true_or_false(value: object) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="tied in its configuration is"):
        Config({"tied": value}).flag("tied", default=False)


def test_an_unknown_word_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="act in its configuration is 'relu'; known: gelu, silu"):
        Config({"act": "relu"}).choice("act", {"silu": "silu", "gelu": "gelu"})


def test_a_section_is_an_object() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="rope_scaling in its configuration is 4"):
        Config({"rope_scaling": 4}).section("rope_scaling")


@pytest.mark.parametrize("values", [{}, {"key": None}], ids=["absent", "null"])
def test_null_is_as_good_as_absent(values: dict[str, object]) -> None:
    config = Config(values)
    assert config.integer("key", 7) == 7
    assert config.number("key", 0.5) == 0.5
    assert config.flag("key", default=True) is True
    assert config.choice("key", {"a": "b"}, "a") == "b"
    assert config.section("key") is None
    assert not config.has("key")
    with pytest.raises(UnsupportedCheckpoint, match="lacks key"):
        config.integer("key")
