"""What single tokens are: their bytes and names. `text` and `prompt` are about whole texts."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tokenizers

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

Step = Callable[[str], str | bytes]
"""Undoes one step of how a tokenizer writes pieces of text as tokens; bytes are the end of it."""


class Spelling:
    """Bytes and ids of one tokenizer's tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added: dict[int, str] = {
            token_id: token.content for token_id, token in tokenizer.get_added_tokens_decoder().items()
        }
        self._named = {name: token_id for token_id, name in self._added.items()}
        self._steps = _steps(tokenizer)

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 of a token, perhaps a part of a character; a special token's name; nothing for an id of no token.

        Those of a text's tokens, one after the other, are that text, but for a space that some tokenizers put first.
        """
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._tokenizer.id_to_token(token_id) if token_id >= 0 else None
        if token is None:
            return b""
        if self._steps is None:
            return str(self._tokenizer.decode([token_id], skip_special_tokens=False)).encode()
        spelled: str | bytes = token
        for step in self._steps:
            if isinstance(spelled, bytes):
                break
            spelled = step(spelled)
        return spelled if isinstance(spelled, bytes) else spelled.encode()

    def token_id(self, text: str) -> int | None:
        """The id of the token that was added by this name, if there is one.

        Not only of a special one: some tokenizers' tokens for tool calls are not, and grammars take both.
        """
        return self._named.get(text)

    def text_of(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included; ids of no token are skipped."""
        known = [token_id for token_id in ids if 0 <= token_id < 1 << 32]  # what the library takes
        return str(self._tokenizer.decode(known, skip_special_tokens=False))


def _steps(tokenizer: tokenizers.Tokenizer) -> tuple[Step, ...] | None:
    """What the tokenizer's decoder does to a token by itself; None if that is not known."""
    decoder = tokenizer.decoder
    if decoder is None:
        return None
    # A decoder has no text of its own in Python, but a tokenizer of nothing else has.
    bare = tokenizers.Tokenizer(tokenizers.models.BPE())
    bare.decoder = decoder
    description = json.loads(bare.to_str())["decoder"]
    steps: list[Step] = []
    for one in description.get("decoders", [description]):
        made = _KINDS.get(one["type"], _unknown)(one)
        if made is None:
            return None
        steps += made
    return tuple(steps)


def _byte_level(_: Mapping[str, Any]) -> list[Step]:
    return [_from_letters]


def _from_letters(token: str) -> bytes:
    try:
        return bytes(_BYTES[letter] for letter in token)
    except KeyError:  # not written in letters: it stands for itself
        return token.encode()


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where printable, else one from U+0100 on (its encoder.py)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_BYTES = {letter: byte for byte, letter in enumerate(_byte_letters())}


def _byte_fallback(_: Mapping[str, Any]) -> list[Step]:
    def undo(token: str) -> str | bytes:
        found = _BYTE_TOKEN.match(token)
        return bytes([int(found[1], 16)]) if found else token

    return [undo]


def _replace(step: Mapping[str, Any]) -> list[Step] | None:
    old, new = step["pattern"].get("String"), step["content"]
    return None if old is None else [lambda token: token.replace(old, new)]


def _metaspace(step: Mapping[str, Any]) -> list[Step]:
    return [lambda token: token.replace(step["replacement"], " ")]


def _word_end(step: Mapping[str, Any]) -> list[Step]:
    return [lambda token: token.replace(step["suffix"], " ")]


def _whole_text(_: Mapping[str, Any]) -> list[Step]:
    return []


def _unknown(_: Mapping[str, Any]) -> None:
    return None


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], list[Step] | None]] = {
    "ByteLevel": _byte_level,
    "ByteFallback": _byte_fallback,
    "Replace": _replace,
    "Metaspace": _metaspace,
    "BPEDecoder": _word_end,
    "Fuse": _whole_text,  # joins what the others made
    "Strip": _whole_text,  # takes away the space that was put before the whole text
}
"""Decoders of tokenizer.json by type (tokenizers, `decoders`)."""
