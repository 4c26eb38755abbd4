"""What tokens cost: a table in TOML, for those who pass costs on. Pure.

currency = "EUR"

[models."*"]            # every model without a line of its own
input = 0.10            # per million tokens
cached = 0.02           # of those, tokens that were in memory already; without it, as `input`
output = 0.40

[models."llama:legal"]  # a model, or one of its adapters
input = 0.20
output = 0.80
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError

FILE = "prices.toml"
"""Where it is looked for: in EDGEKIT_HOME."""

ANY_MODEL = "*"
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Per million tokens. `cached` ones are a part of the input."""

    input: float
    output: float
    cached: float | None = None

    def of(self, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        cached = self.input if self.cached is None else self.cached
        sums = (input_tokens - cached_tokens) * self.input + cached_tokens * cached + output_tokens * self.output
        return sums / _MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices by model, or "model:adapter", or "*" for all others."""

    currency: str
    models: Mapping[str, Price]

    def price(self, model: str, adapter: str | None) -> Price | None:
        """The most particular one there is."""
        names = ([f"{model}:{adapter}"] if adapter else []) + [model, ANY_MODEL]
        return next((self.models[name] for name in names if name in self.models), None)


def parse(text: str) -> Prices:
    """A table from its TOML. Raises UsageError, naming what is wrong."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the price table is not TOML: {error}") from error
    return from_table(found)


def from_table(found: Mapping[str, Any]) -> Prices:
    """A price table as TOML gives it. Raises UsageError, naming what is wrong."""
    _only(found, {"currency", "models"}, "the price table")
    currency, models = found.get("currency"), found.get("models", {})
    if not isinstance(currency, str) or not 1 <= len(currency) <= 8 or not currency.isprintable():
        raise UsageError('the price table needs a currency, such as "EUR".')
    if not isinstance(models, Mapping):
        raise UsageError("models of the price table must be tables.")
    return Prices(currency=currency, models={name: _price(name, entry) for name, entry in models.items()})


def _price(name: str, entry: object) -> Price:
    where = f"the price of {name!r}"
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where} must be a table with input and output.")
    _only(entry, {"input", "cached", "output"}, where)
    values = {part: _amount(f"{where}: {part}", entry[part]) for part in entry}
    if not {"input", "output"} <= set(values):
        raise UsageError(f"{where} needs both input and output.")
    return Price(input=values["input"], output=values["output"], cached=values.get("cached"))


def _amount(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise UsageError(f"{where} must be a number, 0 or more.")
    return float(value)


def _only(found: Mapping[str, object], known: set[str], where: str) -> None:
    if strange := sorted(set(found) - known):
        raise UsageError(f"{where} has {strange[0]!r}, which is none of {', '.join(sorted(known))}.")


def load(path: Path) -> Prices | None:
    """The table in a file, None if there is no such file. Raises UsageError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text: {error}") from error
