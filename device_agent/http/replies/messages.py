"""The shapes of Anthropic's Messages API (docs.anthropic.com, API reference, "Messages" and "Streaming"). Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from device_agent.conversation.records import Event, Spent
from device_agent.http.replies import common
from device_agent.http.replies.blocks import Block, Blocks, Closed, Grown, Opened, Step
from edgekit.errors import EdgekitError

Json = dict[str, Any]

STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
ERROR_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""By HTTP status. Of others, those below 500 are the request's fault too."""

_EMPTY: Final = {"reasoning": {"thinking": "", "signature": ""}, "text": {"text": ""}}
_TYPES: Final = {"reasoning": "thinking", "text": "text", "call": "tool_use"}
_DELTAS: Final = {
    "reasoning": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHead:
    """What stays the same through one answer; `prompt_tokens` are known before the first token."""

    id: str
    model: str
    prompt_tokens: int = 0


class MessageReply:
    """Implements serving.Reply: `event:` lines with the type of what follows."""

    def __init__(self, head: MessageHead) -> None:
        self._head = head
        self._blocks = Blocks()

    def opening(self) -> bytes:
        """As `Wire`."""
        usage = _usage(Spent(input=self._head.prompt_tokens))
        return _event({"type": "message_start", "message": _message(self._head, [], None, None, usage)})

    def event(self, event: Event) -> bytes:
        """As `Wire`."""
        return b"".join(_event(_step(step)) for step in self._blocks.push(event))

    def closing(self, spent: Spent) -> bytes:
        """As `Wire`."""
        reason, sequence = _stop(self._blocks)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return _event({"type": "message_delta", "delta": delta, "usage": _usage(spent)}) + _event(
            {"type": "message_stop"}
        )

    def failed(self, problem: EdgekitError) -> bytes:
        """As `Wire`."""
        return _event(error(problem))

    def ping(self) -> bytes:
        """As `Wire`: Anthropic's own event, which its SDK skips."""
        return _event({"type": "ping"})

    def whole(self, events: Sequence[Event], spent: Spent) -> Json:
        """The answer in one piece."""
        for event in events:
            list(self._blocks.push(event))
        reason, sequence = _stop(self._blocks)
        content = [_content(block) for block in self._blocks.all]
        return _message(self._head, content, reason, sequence, _usage(spent))


def error(problem: EdgekitError) -> Json:
    """Anthropic's error object; what only OpenAI's has is there too, as in every other route's."""
    other = "invalid_request_error" if problem.http_status < 500 else "api_error"
    inner = common.error(problem)["error"] | {"type": ERROR_TYPES.get(problem.http_status, other)}
    return {"type": "error", "error": inner}


def _message(head: MessageHead, content: list[Json], reason: str | None, sequence: str | None, usage: Json) -> Json:
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage,
    }


def _usage(spent: Spent) -> Json:
    """Their input_tokens are those that were not cached."""
    return {
        "input_tokens": spent.input - spent.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": spent.cached,
        "output_tokens": spent.output,
    }


def _stop(blocks: Blocks) -> tuple[str | None, str | None]:
    if blocks.reason == "stop" and blocks.stopped_by is not None:
        return "stop_sequence", blocks.stopped_by
    return STOP_REASONS[blocks.reason or "stop"], None


def _content(block: Block) -> Json:
    kind = _TYPES[block.kind]
    if block.kind == "call":
        return {"type": kind, "id": block.id, "name": block.name, "input": _object(block.text)}
    if block.kind == "reasoning":
        return {"type": kind, "thinking": block.text, "signature": ""}
    return {"type": kind, "text": block.text}


def _object(arguments: str) -> Json:
    """A call's arguments; an answer that was cut at its longest length has only a part of them."""
    try:
        found: Json = msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
    return found


def _step(step: Step) -> Json:
    block = step.block
    match step:
        case Opened():
            if block.kind == "call":
                start: Json = {"id": block.id, "name": block.name, "input": {}}
            else:
                start = dict(_EMPTY[block.kind])
            content = {"type": _TYPES[block.kind], **start}
            return {"type": "content_block_start", "index": block.index, "content_block": content}
        case Grown(piece=piece):
            kind, field = _DELTAS[block.kind]
            return {"type": "content_block_delta", "index": block.index, "delta": {"type": kind, field: piece}}
        case Closed():
            return {"type": "content_block_stop", "index": block.index}


def _event(value: Json) -> bytes:
    """With the name that Anthropic's SDK reads; the data are as in sse.event."""
    name = str(value["type"]).encode("ascii")
    data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    return b"event: " + name + b"\n" + b"data: " + data + b"\n\n"
