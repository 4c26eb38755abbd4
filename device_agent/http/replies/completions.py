"""A completion's events as OpenAI writes them: one reply, or the chunks of a stream. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, UnsetType

from device_agent.conversation.records import Ended, Event, Said, Spent
from device_agent.engine.records import TokenLogprob
from device_agent.http.replies import common, sse
from device_agent.http.replies.common import Envelope
from device_agent.http.replies.shapes import TextChoice, TextCompletion, TextLogprobs, Timing, Usage
from device_agent.http.replies.spelling import Speller, finite, token_text
from edgekit.errors import EdgekitError

_NEAR_BYTES = 16
"""How far from its expected place a token's text may be: behind text whose tokens came before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionReply:
    """A streaming.Wire, and the whole reply; for one answer only, since it counts its characters."""

    envelope: Envelope
    choices: int
    speller: Speller
    with_logprobs: bool = False
    _written: dict[int, int] = field(default_factory=dict)

    # --- a stream ---------------------------------------------------------------------------

    def opening(self) -> bytes:
        """Completions have no role to begin with."""
        return b""

    def event(self, event: Event) -> bytes:
        """The chunk that says this."""
        choice = self._choice(event)
        if choice is None:
            return b""
        usage = None if self.envelope.with_usage else UNSET
        timings = common.timing(event.timings) if isinstance(event, Ended) else UNSET
        return sse.event(msgspec.to_builtins(self._bare([choice], usage=usage, timings=timings)))

    def closing(self, spent: Spent) -> bytes:
        """Usage only for clients that asked: naive ones index choices[0]."""
        if not self.envelope.with_usage:
            return sse.DONE
        return sse.event(msgspec.to_builtins(self._bare([], usage=common.usage(spent)))) + sse.DONE

    def failed(self, problem: EdgekitError) -> bytes:
        """The error object as an event."""
        return sse.event(common.error(problem))

    def ping(self) -> bytes:
        """A comment."""
        return sse.PING

    # --- all at once ------------------------------------------------------------------------

    def whole(self, events: Sequence[Event], spent: Spent) -> TextCompletion:
        """The reply that a stream of these events adds up to."""
        made = [
            TextChoice(index=index, text="", logprobs=_no_logprobs() if self.with_logprobs else None)
            for index in range(self.choices)
        ]
        timings: Timing | UnsetType = UNSET
        for event in events:
            _add(made[event.choice], self._choice(event))
            if isinstance(event, Ended) and event.choice == 0:
                timings = common.timing(event.timings)
        return self._bare(made, usage=common.usage(spent), timings=timings)

    def _bare(
        self,
        choices: list[TextChoice],
        *,
        usage: Usage | UnsetType | None,
        timings: Timing | UnsetType = UNSET,
    ) -> TextCompletion:
        return TextCompletion(
            id=self.envelope.id,
            created=self.envelope.created,
            model=self.envelope.model,
            system_fingerprint=self.envelope.fingerprint,
            choices=choices,
            usage=usage,
            timings=timings,
        )

    def _choice(self, event: Event) -> TextChoice | None:
        """What an event adds to its choice, None for nothing."""
        if isinstance(event, Ended):
            return TextChoice(
                index=event.choice, text="", finish_reason="length" if event.reason == "length" else "stop"
            )
        if not isinstance(event, Said):
            return None
        logprobs = self._logprobs(event) if self.with_logprobs and event.logprobs else None
        self._written[event.choice] = self._written.get(event.choice, 0) + len(event.text)
        if not event.text and logprobs is None:
            return None
        return TextChoice(index=event.choice, text=event.text, logprobs=logprobs)

    def _logprobs(self, said: Said) -> TextLogprobs:
        spelt = [self.speller.spell(one.id) for one in said.logprobs]
        start = self._written.get(said.choice, 0)
        return TextLogprobs(
            tokens=[_text(raw) for raw in spelt],
            token_logprobs=[None if one.logprob is None else finite(one.logprob) for one in said.logprobs],
            top_logprobs=[self._top(one) for one in said.logprobs],
            text_offset=[start + offset for offset in offsets(spelt, said.text)],
        )

    def _top(self, found: TokenLogprob) -> dict[str, float] | None:
        """The likeliest tokens, and the written one too, so that there may be one more than asked for (as OpenAI)."""
        if found.logprob is None:
            return None
        # Reversed: where two ids have one text, the likelier one stays.
        top = {_text(self.speller.spell(token_id)): finite(logprob) for token_id, logprob in reversed(found.top)}
        top.setdefault(_text(self.speller.spell(found.id)), finite(found.logprob))
        return dict(sorted(top.items(), key=lambda item: -item[1]))


def offsets(tokens: Sequence[bytes], text: str) -> list[int]:
    """Where in `text` each token begins, in characters.

    A token without text of its own (one that begins or ends a text) is where the next one is, and one that is the rest
    of a character where that character is. Decoders may strip the
    space of a text's first word, and hold the bytes of an unfinished character back.
    """
    raw = text.encode()
    found: list[int] = []
    at = characters = 0
    for token in tokens:
        where, width = _place(token, raw, at)
        characters += _begun(raw[at:where])
        inside = raw[where : where + 1] and not _begun(raw[where : where + 1])
        found.append(characters - 1 if inside else characters)
        characters += _begun(raw[where : where + width])
        at = where + width
    return found


def _begun(raw: bytes) -> int:
    """Characters that begin in these bytes of UTF-8."""
    return sum(byte & 0xC0 != 0x80 for byte in raw)


def _place(token: bytes, raw: bytes, at: int) -> tuple[int, int]:
    where = raw.find(token, at, at + len(token) + _NEAR_BYTES) if token else -1
    if where >= 0:
        return where, len(token)
    if at == 0 and token.startswith(b" ") and raw.startswith(token[1:]):
        return 0, len(token) - 1
    return at, 0


def _text(raw: bytes) -> str:
    """A token's text; the bytes of one that is a part of a character as OpenAI's completions write them."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"bytes:{token_text(raw)}"


def _no_logprobs() -> TextLogprobs:
    return TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])


def _add(choice: TextChoice, more: TextChoice | None) -> None:
    if more is None:
        return
    choice.text += more.text
    choice.finish_reason = more.finish_reason or choice.finish_reason
    if choice.logprobs is not None and more.logprobs is not None:
        choice.logprobs.tokens += more.logprobs.tokens
        choice.logprobs.token_logprobs += more.logprobs.token_logprobs
        choice.logprobs.top_logprobs += more.logprobs.top_logprobs
        choice.logprobs.text_offset += more.logprobs.text_offset
