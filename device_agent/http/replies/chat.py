"""A chat's events as OpenAI writes them: one reply, or the chunks of a stream. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, UnsetType

from device_agent.conversation.records import Argued, Called, Ended, Event, Said, Spent, Thought
from device_agent.engine.records import TokenLogprob
from device_agent.http.replies import common, sse
from device_agent.http.replies.common import Envelope
from device_agent.http.replies.shapes import (
    CallFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ChatToken,
    LikelyToken,
    Timing,
    ToolCallDelta,
    ToolCallReply,
    Usage,
)
from device_agent.http.replies.spelling import Speller, finite, token_text
from edgekit.errors import EdgekitError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A streaming.Wire, and the whole reply.

    `with_logprobs` as the request asked. `endings` are the ids that end an answer: they are no part of its content.
    """

    envelope: Envelope
    choices: int
    speller: Speller
    with_logprobs: bool = False
    endings: frozenset[int] = frozenset()

    # --- a stream ---------------------------------------------------------------------------

    def opening(self) -> bytes:
        """The role, once for each choice."""
        delta = ChatDelta(role="assistant", content="")
        return b"".join(self._chunk(ChatChunkChoice(index=index, delta=delta)) for index in range(self.choices))

    def event(self, event: Event) -> bytes:
        """The chunk that says this."""
        if isinstance(event, Ended):
            choice = ChatChunkChoice(index=event.choice, delta=ChatDelta(), finish_reason=event.reason)
            return self._chunk(choice, timings=common.timing(event.timings))
        if isinstance(event, Said):
            content = self._tokens(event.logprobs)
            if not event.text and not content:
                return b""
            logprobs = ChatLogprobs(content=content) if content else None
            delta = ChatDelta(content=event.text)
            return self._chunk(ChatChunkChoice(index=event.choice, delta=delta, logprobs=logprobs))
        return self._chunk(ChatChunkChoice(index=event.choice, delta=_delta(event)))

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

    def _chunk(self, choice: ChatChunkChoice, *, timings: Timing | UnsetType = UNSET) -> bytes:
        # OpenAI sends a null usage in every chunk before the one that has it.
        usage = None if self.envelope.with_usage else UNSET
        return sse.event(msgspec.to_builtins(self._bare([choice], usage=usage, timings=timings)))

    def _bare(
        self,
        choices: list[ChatChunkChoice],
        *,
        usage: Usage | UnsetType | None,
        timings: Timing | UnsetType = UNSET,
    ) -> ChatChunk:
        return ChatChunk(
            id=self.envelope.id,
            created=self.envelope.created,
            model=self.envelope.model,
            system_fingerprint=self.envelope.fingerprint,
            choices=choices,
            usage=usage,
            timings=timings,
        )

    # --- all at once ------------------------------------------------------------------------

    def whole(self, events: Sequence[Event], spent: Spent) -> ChatCompletion:
        """The reply that a stream of these events adds up to."""
        drafts = [_Draft() for _ in range(self.choices)]
        for event in events:
            drafts[event.choice].take(event)
        return ChatCompletion(
            id=self.envelope.id,
            created=self.envelope.created,
            model=self.envelope.model,
            system_fingerprint=self.envelope.fingerprint,
            choices=[self._choice(index, draft) for index, draft in enumerate(drafts)],
            usage=common.usage(spent),
            timings=common.timing(drafts[0].end.timings),
        )

    def _choice(self, index: int, draft: "_Draft") -> ChatChoice:
        content = self._tokens(draft.logprobs)
        return ChatChoice(
            index=index,
            message=draft.message(),
            logprobs=ChatLogprobs(content=content) if self.with_logprobs else None,
            finish_reason=draft.end.reason,
        )

    # --- logprobs ---------------------------------------------------------------------------

    def _tokens(self, found: Sequence[TokenLogprob]) -> list[ChatToken]:
        """Tokens of the content, if they were asked for: a strategy may look at them for itself."""
        if not self.with_logprobs:
            return []
        return [self._token(one) for one in found if one.id not in self.endings]

    def _token(self, found: TokenLogprob) -> ChatToken:
        likely = [self._likely(token_id, logprob) for token_id, logprob in found.top]
        itself = self._likely(found.id, 0.0 if found.logprob is None else found.logprob)
        return ChatToken(token=itself.token, logprob=itself.logprob, bytes=itself.bytes, top_logprobs=likely)

    def _likely(self, token_id: int, logprob: float) -> LikelyToken:
        raw = self.speller.spell(token_id)
        return LikelyToken(token=token_text(raw), logprob=finite(logprob), bytes=list(raw))


def _delta(event: Thought | Called | Argued) -> ChatDelta:
    """`id`, `type` and `name` only in a call's first delta: clients add up what they get."""
    match event:
        case Thought(text=text):
            return ChatDelta(reasoning_content=text)
        case Called(call=call, id=call_id, name=name):
            begun = ToolCallDelta(index=call, id=call_id, type="function", function=CallFunction(name=name))
            return ChatDelta(tool_calls=[begun])
        case Argued(call=call, fragment=fragment):
            return ChatDelta(tool_calls=[ToolCallDelta(index=call, function=CallFunction(arguments=fragment))])


@dataclass(slots=True)
class _Draft:
    """One choice, as far as it is known."""

    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Called] = field(default_factory=list)
    arguments: dict[int, list[str]] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: Ended = field(default_factory=lambda: Ended(reason="stop"))

    def take(self, event: Event) -> None:
        match event:
            case Said(text=text, logprobs=logprobs):
                self.text.append(text)
                self.logprobs.extend(logprobs)
            case Thought(text=text):
                self.thoughts.append(text)
            case Called():
                self.calls.append(event)
            case Argued(call=call, fragment=fragment):
                self.arguments.setdefault(call, []).append(fragment)
            case Ended():
                self.end = event

    def message(self) -> ChatMessage:
        text, thoughts = "".join(self.text), "".join(self.thoughts)
        calls = [
            ToolCallReply(
                id=call.id,
                function=CallFunction(name=call.name, arguments="".join(self.arguments.get(call.call, []))),
            )
            for call in self.calls
        ]
        return ChatMessage(
            content=text if text or not calls else None,
            reasoning_content=thoughts or UNSET,
            tool_calls=calls or UNSET,
        )
