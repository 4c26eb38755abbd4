"""An answer's text to events, as it comes.

The grammar has seen to it that calls are calls; what is none all the same stays text. White space before calls is
theirs: a client that gets calls gets no content of blanks.
"""

import enum
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from device_agent.conversation.records import Argued, Called, Said
from device_agent.conversation.tools.records import Found, Syntax
from device_agent.engine.records import TokenLogprob

_BLANKS = " \t\r\n"


class _Part(enum.Enum):
    """What may differ from call to call."""

    NAME = enum.auto()
    ID = enum.auto()


Pattern = tuple[str | _Part, ...]


@dataclass(frozen=True, slots=True)
class _Match:
    """A pattern found at a text's beginning: where it ends, and the tool's name in it."""

    end: int
    name: str


class _Outcome(enum.Enum):
    """No match, or not yet one."""

    NEVER = enum.auto()
    PERHAPS = enum.auto()


class _State(enum.Enum):
    """What the text that comes next belongs to."""

    TEXT = enum.auto()
    CALL = enum.auto()
    ARGUMENTS = enum.auto()
    AFTER = enum.auto()
    PLAIN = enum.auto()
    OVER = enum.auto()


class PlainReader:
    """All text is text: no tool can be called."""

    def __init__(self) -> None:
        self._logprobs: list[TokenLogprob] = []

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Sequence[Found]:
        """The piece, with the logprobs of all tokens since the last one that had text."""
        self._logprobs += logprobs
        if not text:
            return ()
        said = Said(text=text, logprobs=tuple(self._logprobs))
        self._logprobs.clear()
        return (said,)

    def forget(self) -> None:
        """Tokens so far brought no text."""
        self._logprobs.clear()

    def finish(self) -> tuple[Sequence[Found], bool]:
        """Nothing is held back."""
        return (), False


class CallReader:
    """Finds the calls of a syntax; `names` are the tools that exist."""

    def __init__(self, syntax: Syntax, names: Collection[str]) -> None:
        self._opening = syntax.opening
        self._names = frozenset(names)
        self._first, self._later = _patterns(syntax)
        self._plain = PlainReader()
        self._state = _State.TEXT if syntax.opening else _State.CALL
        self._held = ""
        self._calls = 0
        self._object = _Object()

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Sequence[Found]:
        """What has become certain with this piece."""
        self._plain.push("", logprobs)
        self._held += text
        found: list[Found] = []
        while self._step(found):
            pass
        return found

    def finish(self) -> tuple[Sequence[Found], bool]:
        """Text that was held back. What may have become an opening is text; a call cut short before its name is not."""
        found: list[Found] = []
        if self._state is _State.TEXT or (self._state is _State.CALL and not self._opening):
            found += self._plain.push(self._held)
        self._held, self._state = "", _State.OVER
        return found, self._calls > 0

    def _step(self, found: list[Found]) -> bool:
        """Take what can be taken from the text held; whether there may be more."""
        match self._state:
            case _State.TEXT:
                return self._text(found)
            case _State.CALL:
                return self._call(found, [self._first])
            case _State.AFTER:
                return self._call(found, self._later)
            case _State.ARGUMENTS:
                return self._arguments(found)
            case _State.PLAIN:
                found += self._plain.push(self._held)
            case _State.OVER:
                self._plain.forget()
        self._held = ""
        return False

    def _text(self, found: list[Found]) -> bool:
        at = self._held.find(self._opening)
        certain = self._held[: at if at >= 0 else len(self._held) - _overlap(self._held, self._opening)]
        certain = certain.rstrip(_BLANKS)
        found += self._plain.push(certain)
        self._held = self._held[len(certain) :]
        if at >= 0:
            self._state = _State.CALL
        return at >= 0

    def _call(self, found: list[Found], patterns: Iterable[Pattern]) -> bool:
        outcomes = [_matched(pattern, self._held, self._names) for pattern in patterns]
        for outcome in outcomes:
            if isinstance(outcome, _Match):
                self._held = self._held[outcome.end :]
                found.append(Called(call=self._calls, id=f"call_{secrets.token_hex(12)}", name=outcome.name))
                self._calls += 1
                self._plain.forget()
                self._state, self._object = _State.ARGUMENTS, _Object()
                return True
        if _Outcome.PERHAPS in outcomes:
            return False
        if self._state is _State.AFTER:
            self._state = _State.OVER
        elif self._opening:  # no call: the opening is text, and so is what follows, up to the next
            end = self._held.index(self._opening) + len(self._opening)
            found += self._plain.push(self._held[:end])
            self._held, self._state = self._held[end:], _State.TEXT
        else:
            self._state = _State.PLAIN
        return True

    def _arguments(self, found: list[Found]) -> bool:
        if not self._object.begun:
            self._held = self._held.lstrip(_BLANKS)
        size = self._object.read(self._held)
        fragment, self._held = self._held[:size], self._held[size:]
        if fragment:
            found.append(Argued(call=self._calls - 1, fragment=fragment))
        if self._object.ended:
            self._state = _State.AFTER
        return self._object.ended


class _Object:
    """Follows the text of a JSON object to its closing brace."""

    def __init__(self) -> None:
        self.begun = self.ended = False
        self._depth = 0
        self._quoted = self._escaped = False

    def read(self, text: str) -> int:
        """How much of the text belongs to the object."""
        for index, character in enumerate(text):
            self.begun = True
            if self._quoted:
                self._within_string(character)
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.ended = True
                    return index + 1
        return len(text)

    def _within_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._quoted = False


def _patterns(syntax: Syntax) -> tuple[Pattern, list[Pattern]]:
    """What a first call looks like up to its arguments, and what comes between one's arguments and the next's."""
    call: Pattern = (syntax.head, _Part.NAME, syntax.middle)
    if not syntax.opening:
        return call, []
    tails: list[Pattern] = [(syntax.tail,)]
    if syntax.with_id:
        tails.append((', "id": "', _Part.ID, '"}'))
    if syntax.listed:
        return (syntax.opening, "[", *call), [(*tail, syntax.separator, *call) for tail in tails]
    between = (syntax.closing, syntax.separator, syntax.opening)
    return (syntax.opening, *call), [(*tail, *between, *call) for tail in tails]


def _matched(pattern: Pattern, text: str, names: frozenset[str]) -> _Match | _Outcome:
    """The pattern at the text's beginning; white space around its parts does not count."""
    at, name = 0, ""
    for part in pattern:
        rest = text[at:]
        if isinstance(part, str):
            rest = rest.lstrip(_BLANKS)
            known = part.strip(_BLANKS)
            if not rest.startswith(known):
                return _Outcome.PERHAPS if known.startswith(rest) else _Outcome.NEVER
            at = len(text) - len(rest) + len(known)
            continue
        word = _word(rest)
        at += len(word)
        if at == len(text):
            return _Outcome.PERHAPS
        if part is _Part.NAME:
            name = word
            if name not in names:
                return _Outcome.NEVER
    return _Match(at, name)


def _word(text: str) -> str:
    """The letters, digits, underscores and hyphens that a text begins with."""
    end = next((index for index, one in enumerate(text) if not (one.isalnum() or one in "_-")), len(text))
    return text[:end]


def _overlap(text: str, opening: str) -> int:
    """Length of the longest end of the text with which `opening` begins."""
    most = min(len(text), len(opening) - 1)
    return next((size for size in range(most, 0, -1) if opening.startswith(text[-size:])), 0)
