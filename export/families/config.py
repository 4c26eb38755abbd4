"""Reading a checkpoint's configuration: every value is checked for its type, and a wrong one is named."""

import sys
from collections.abc import Mapping
from typing import TypeVar, cast

from edgekit.arch import Activation
from edgekit.errors import UnsupportedCheckpoint

Word = TypeVar("Word", bound=str)

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""Words of `hidden_act` and what they compute."""


class Config:
    """config.json, read field by field. Each reader raises UnsupportedCheckpoint for a missing or wrong value."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._present(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value!r}, not a whole number")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of at least one: what others are divided by."""
        value = self.integer(key, default)
        if value < 1:
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number: bases, factors and epsilons all are."""
        value = self._present(key, default)
        if not _is_positive(value):
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value!r}, not a positive number"[:300])
        return float(cast("float", value))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of positive numbers."""
        value = self._present(key, None)
        if not isinstance(value, list) or not all(_is_positive(item) for item in value):
            raise UnsupportedCheckpoint(f"{key} in its configuration is not a list of positive numbers")
        return tuple(float(item) for item in value)

    def integers(self, key: str) -> tuple[int, ...] | None:
        """A list of whole numbers, or None if it is absent or null."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) for item in value
        ):
            raise UnsupportedCheckpoint(f"{key} in its configuration is not a list of whole numbers")
        return tuple(value)

    def words(self, key: str) -> tuple[str, ...] | None:
        """A list of words, or None if it is absent or null."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UnsupportedCheckpoint(f"{key} in its configuration is not a list of words")
        return tuple(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._present(key, default)
        if not isinstance(value, bool):
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value!r}, not true or false")
        return value

    def choice(self, key: str, table: Mapping[str, Word], default: str | None = None) -> Word:
        """A word, translated by `table`; a word that is not in it is refused, naming those that are."""
        value = self._present(key, default)
        if not isinstance(value, str) or value not in table:
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value!r}; known: {', '.join(sorted(table))}")
        return table[value]

    def section(self, key: str) -> "Config | None":
        """A nested object, or None if it is absent or null."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value!r}, not an object")
        return Config(cast("Mapping[str, object]", value))

    def or_else(self, defaults: Mapping[str, object]) -> "Config":
        """These values, with `defaults` for what is absent or null."""
        return Config({**defaults, **{key: value for key, value in self._values.items() if value is not None}})

    def has(self, key: str) -> bool:
        """Whether the key is there with a value that is not null."""
        return self._values.get(key) is not None

    def null(self, key: str) -> bool:
        """Whether the key is there as null, for settings where that differs from the default."""
        return key in self._values and self._values[key] is None

    def only(self, key: str, value: object) -> None:
        """Raise UnsupportedCheckpoint if the key is there, not null, and not the one value that we carry."""
        found = self._values.get(key)
        if found is not None and found != value:
            raise UnsupportedCheckpoint(
                f"{key} in its configuration is {found!r}, which no graph of ours carries"[:300]
            )

    def _present(self, key: str, default: object) -> object:
        value = self._values.get(key)
        value = default if value is None else value
        if value is None:
            raise UnsupportedCheckpoint(f"its configuration lacks {key}")
        return value


def _is_positive(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < sys.float_info.max
