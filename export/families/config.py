"""Reading a checkpoint's configuration: every value is checked for its type, and a wrong one is named."""

import sys
from collections.abc import Mapping
from typing import TypeVar, cast

from edgekit.errors import UnsupportedCheckpoint

Word = TypeVar("Word", bound=str)


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

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number: bases, factors and epsilons all are."""
        value = self._present(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < sys.float_info.max:
            raise UnsupportedCheckpoint(f"{key} in its configuration is {value!r}, not a positive number"[:300])
        return float(value)

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

    def has(self, key: str) -> bool:
        """Whether the key is there with a value that is not null."""
        return self._values.get(key) is not None

    def _present(self, key: str, default: object) -> object:
        value = self._values.get(key)
        value = default if value is None else value
        if value is None:
            raise UnsupportedCheckpoint(f"its configuration lacks {key}")
        return value
