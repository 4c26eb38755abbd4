"""Metadata under `<architecture>.`, checked as it is read."""

from collections.abc import Mapping

import numpy as np

from edgekit.arch import MAX_DIMENSION
from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.gguf_header import Value


class Settings:
    """Values by key without the architecture's name. `file` is named in errors.

    Every reader takes `default` where the key is absent, and raises CorruptCheckpoint where a value is impossible.
    """

    def __init__(self, metadata: Mapping[str, Value], architecture: str, file: str) -> None:
        self._metadata = metadata
        self._architecture = architecture
        self.file = file

    def has(self, key: str) -> bool:
        """True if the file says it."""
        return f"{self._architecture}.{key}" in self._metadata

    def get(self, key: str) -> Value | None:
        """The value as it is."""
        return self._metadata.get(f"{self._architecture}.{key}")

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int | None:
        """A whole number from `least` up. Raises UnsupportedCheckpoint for one that differs from layer to layer."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool | int | float | str):
            raise UnsupportedCheckpoint(f"its {self._architecture}.{key} differs from layer to layer")
        if type(value) is not int or not least <= value <= MAX_DIMENSION:
            raise self.wrong(key, value)
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """A positive finite number."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise self.wrong(key, value)
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, value)
        return value

    def word(self, key: str, default: str) -> str:
        """A text."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, value)
        return value

    def flags(self, key: str) -> list[bool] | None:
        """One truth value per layer; None if the value is no such list."""
        value = self.get(key)
        if isinstance(value, np.ndarray) and value.dtype == np.bool_:
            return [bool(item) for item in value]
        return None

    def required_count(self, key: str) -> int:
        """A `count` that must be there."""
        found = self.count(key)
        if found is None:
            raise self.missing(key)
        return found

    def missing(self, key: str) -> CorruptCheckpoint:
        """The error for a key that should be there."""
        return CorruptCheckpoint(f"it does not say its {self._architecture}.{key}", self.file)

    def wrong(self, key: str, value: object) -> CorruptCheckpoint:
        """The error for a value that cannot be."""
        return CorruptCheckpoint(f"its {self._architecture}.{key} is {value!r}"[:200], self.file)
