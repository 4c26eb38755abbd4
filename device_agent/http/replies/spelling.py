"""Tokens as clients read them, one by one: text, UTF-8, logarithms that JSON can carry. Pure."""

from device_agent.engine.records import ModelService

LEAST_LOGPROB = -9999.0
"""What OpenAI sends for a token that cannot be: JSON has no minus infinity, and null breaks arithmetic."""


def token_text(raw: bytes) -> str:
    r"""A token's text; the bytes of one that is a part of a character are written as `\xe2\x80`, as OpenAI does."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in raw)


def finite(logprob: float) -> float:
    """A number that JSON can carry."""
    return max(logprob, LEAST_LOGPROB)


class Speller:
    """Bytes of a model's tokens; the same few come again and again."""

    def __init__(self, model: ModelService) -> None:
        self._model = model
        self._known: dict[int, bytes] = {}

    def spell(self, token_id: int) -> bytes:
        """UTF-8 of a token."""
        if token_id not in self._known:
            self._known[token_id] = self._model.token_bytes(token_id)
        return self._known[token_id]
