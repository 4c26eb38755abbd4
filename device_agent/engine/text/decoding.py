"""From token ids to text that a reader may see: whole characters only, and nothing of a stop string."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from edgekit.errors import InvalidRequest

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSURE_CHARACTERS = 3
"""An unfinished UTF-8 character is at most three bytes; decoders show them as one to three U+FFFD."""
_KEPT_TOKENS = 16
"""More than the bytes of three unsure characters plus the three after which UTF-8 is in step again."""


class TextDecoder(Protocol):
    """What is needed of `tokenizers.Tokenizer`."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of `ids`; ids that no token has are skipped."""


class Detokenizer:
    """Incremental decoding that gives the same text as decoding all ids at once.

    Special tokens are skipped but for those in `shown`, whose names are text.

    Only a window of the newest ids is decoded for each token, so the cost does not grow with the answer. In
    front of it stands an anchor, the first ids that gave text: decoders that strip the space of a text's first
    word (SentencePiece) then leave the window's spaces alone.

    A U+FFFD at the window's end may be the beginning of a character whose other bytes are still to come. It is
    held back until the next tokens decide, or until `finish`.
    """

    def __init__(self, tokenizer: TextDecoder, *, shown: AbstractSet[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._special = shown
        self._anchor: list[int] = []
        self._anchor_text = ""
        self._window: list[int] = []
        self._shown = 0  # characters of the window's text that were returned already

    def push(self, token_id: int) -> str:
        """Text that became certain with this token; often one word, sometimes nothing."""
        if self._special and token_id not in self._special and self._is_special(token_id):
            return ""
        self._window.append(token_id)
        text = self._text()
        certain = len(text) - _unsure(text)
        piece = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if text and self._shown >= len(text):
            self._restart()
        else:
            self._shorten(text)
        return piece

    def finish(self) -> str:
        """What was held back: the bytes of an unfinished character become U+FFFD."""
        rest = self._text()[self._shown :]
        self._restart()
        return rest

    def _text(self) -> str:
        whole = self._decode(self._anchor + self._window)
        if whole.startswith(self._anchor_text):
            return whole[len(self._anchor_text) :]
        # Byte fallback turns a whole run of byte tokens into U+FFFD if one is bad, an anchor of bytes included.
        return self._decode(self._window)

    def _restart(self) -> None:
        """Begin a new window; the first one that had text becomes the anchor."""
        if not self._anchor_text:
            self._anchor, self._anchor_text = self._window, self._decode(self._window)
        self._window, self._shown = [], 0

    def _shorten(self, text: str) -> None:
        """Bound the window when no end of a character is in sight, as in binary rubbish."""
        if not self._special and self._is_special(self._window[-1]):
            self._window.pop()  # it has no part in the text, and would take the place of a byte that has
        if len(self._window) > 2 * _KEPT_TOKENS:
            held = len(text) - self._shown
            del self._window[:-_KEPT_TOKENS]
            self._shown = max(0, len(self._text()) - held)

    def _is_special(self, token_id: int) -> bool:
        # A space that is only stripped because it comes first has no text either way.
        skipped, whole = (self._tokenizer.decode([token_id], skip_special_tokens=skip) for skip in (True, False))
        return not skipped and bool(whole)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=not self._special)


def _unsure(text: str) -> int:
    """How many characters at the end of `text` the next bytes may still change."""
    return min(len(text) - len(text.rstrip(_REPLACEMENT)), _UNSURE_CHARACTERS)


class StopStrings:
    """Cuts a text where the first stop string is complete; neither it nor what follows is returned.

    Of several that end at the same character, the longest counts. Text that may be the beginning of a stop
    string is held back, so the result does not depend on how the text was cut into pieces.
    Raises InvalidRequest for an empty stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise InvalidRequest("A stop string is empty.", param="stop")
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that is safe to show, and the stop string that ended it, if one did; after that, push no more."""
        text = self._held + text
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            _, at, stop = min(ends)
            return text[:at], stop
        safe = min((_beginning(stop, text) for stop in self._stops), default=len(text))
        self._held = text[safe:]
        return text[:safe], None

    def finish(self) -> str:
        """What was held back, now that the text is at its end."""
        rest, self._held = self._held, ""
        return rest


def _beginning(stop: str, text: str) -> int:
    """Where the longest end of `text` that begins `stop` starts; the length of `text` if none does."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return at
        at = text.find(stop[0], at + 1)
    return len(text)
