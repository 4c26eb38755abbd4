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


@pytest.mark.parametrize("value", [7, [1.0], [True], ["1"], {"0": 1}])
def test_a_list_of_whole_numbers_is_nothing_else(value: object) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="layers in its configuration is not a list of whole numbers"):
        Config({"layers": value}).integers("layers")


def test_lists_may_be_absent() -> None:
    assert Config({"layers": [1, 0]}).integers("layers") == (1, 0)
    assert Config({"layers": None}).integers("layers") is None
    assert Config({}).integers("layers") is None


def test_null_is_told_from_absent_where_it_matters() -> None:
    assert Config({"window": None}).null("window")
    assert not Config({}).null("window")
    assert not Config({"window": 0}).null("window")


@pytest.mark.parametrize("values", [{}, {"key": None}, {"key": False}], ids=["absent", "null", "the same"])
def test_the_one_value_that_is_carried_passes(values: dict[str, object]) -> None:
    Config(values).only("key", value=False)


def test_any_other_value_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="key in its configuration is True"):
        Config({"key": True}).only("key", value=False)
    with pytest.raises(UnsupportedCheckpoint, match="key in its configuration is 5"):
        Config({"key": 5}).only("key", value=None)


def test_defaults_stand_for_what_is_absent_or_null_and_for_nothing_else() -> None:
    config = Config({"null": None, "there": 3}).or_else({"null": 1, "absent": 2, "there": 4})
    assert [config.integer(key) for key in ("null", "absent", "there")] == [1, 2, 3]
