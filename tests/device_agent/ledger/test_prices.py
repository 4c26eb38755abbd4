"""Prices: per million tokens, the most particular one, and clear words for a wrong table."""

from pathlib import Path

import pytest

from device_agent.ledger import prices
from device_agent.ledger.prices import Price
from edgekit.errors import UsageError

TABLE = """
currency = "EUR"
[models."*"]
input = 1
output = 2.5
[models.llama]
input = 10
cached = 1
output = 20
[models."llama:legal"]
input = 100
output = 200
"""


@pytest.mark.parametrize(
    ("model", "adapter", "input_price"),
    [("phi", None, 1), ("phi", "legal", 1), ("llama", None, 10), ("llama", "medical", 10), ("llama", "legal", 100)],
)
def test_the_most_particular_price_counts(model: str, adapter: str | None, input_price: float) -> None:
    found = prices.parse(TABLE).price(model, adapter)
    assert found is not None
    assert found.input == input_price


def test_a_model_without_a_price_has_none() -> None:
    assert prices.parse('currency = "EUR"\n[models.phi]\ninput = 1\noutput = 1').price("llama", None) is None


def test_cached_tokens_have_their_own_price_if_there_is_one() -> None:
    tokens = {"input_tokens": 1_000_000, "cached_tokens": 400_000, "output_tokens": 2_000_000}
    assert Price(input=10, cached=1, output=20).of(**tokens) == pytest.approx(6 + 0.4 + 40)
    assert Price(input=10, output=20).of(**tokens) == pytest.approx(10 + 40)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("currency =", "not TOML"),
        ("", "currency"),
        ("currency = 3", "currency"),
        ('currency = "much too long"', "currency"),
        ('currency = "EUR"\nmodels = 3', "models"),
        ('currency = "EUR"\nmodel = 3', "'model'"),
        ('currency = "EUR"\n[models]\nphi = 3', "'phi'"),
        ('currency = "EUR"\n[models.phi]\ninput = 1', "both"),
        ('currency = "EUR"\n[models.phi]\ninput = -1\noutput = 1', "'phi': input"),
        ('currency = "EUR"\n[models.phi]\ninput = true\noutput = 1', "'phi': input"),
        ('currency = "EUR"\n[models.phi]\ninput = nan\noutput = 1', "'phi': input"),
        ('currency = "EUR"\n[models.phi]\ninput = 1\noutput = "1"', "'phi': output"),
        ('currency = "EUR"\n[models.phi]\ninput = 1\noutput = 1\ncache = 1', "'cache'"),
    ],
)
def test_a_wrong_table_is_named(text: str, names: str) -> None:
    with pytest.raises(UsageError) as caught:
        prices.parse(text)
    assert names in str(caught.value)


def test_no_file_is_no_price_and_an_unreadable_one_an_error(tmp_path: Path) -> None:
    assert prices.load(tmp_path / "prices.toml") is None
    (tmp_path / "prices.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot be read"):
        prices.load(tmp_path / "prices.toml")
    (tmp_path / "prices.toml").write_text(TABLE)
    assert prices.load(tmp_path / "prices.toml") == prices.parse(TABLE)
