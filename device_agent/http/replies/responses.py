"""The shapes of OpenAI's Responses API (platform.openai.com, API reference, "Responses" and "Streaming events"). Pure.

The subset without state: nothing is stored, and no answer can be asked for again. Blocks are output items; a message
has one part of text, reasoning one of reasoning text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from device_agent.conversation.records import Event, Spent
from device_agent.engine.records import TokenLogprob
from device_agent.http.replies import common, sse
from device_agent.http.replies.blocks import Block, Blocks, Closed, Grown, Opened, Step
from device_agent.http.replies.spelling import Speller, finite, token_text
from edgekit.errors import EdgekitError

Json = dict[str, Any]
_PREFIX: Final = {"reasoning": "rs_", "text": "msg_", "call": "fc_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """What stays the same through one answer. `asked` are the request's parameters that a response repeats.

    `speller` spells tokens for logprobs; None: none were asked for.
    """

    id: str
    created: int
    model: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    speller: Speller | None = None


class ResponseReply:
    """Implements serving.Reply: numbered events, each with its type twice, as OpenAI sends them."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._blocks = Blocks()
        self._sent = 0

    def opening(self) -> bytes:
        """As `Wire`."""
        begun = _response(self._head, "in_progress", [], None, None)
        return self._events(
            [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
        )

    def event(self, event: Event) -> bytes:
        """As `Wire`."""
        return self._events([shape for step in self._blocks.push(event) for shape in _step(step, self._head)])

    def closing(self, spent: Spent) -> bytes:
        """As `Wire`."""
        done = _ended(self._head, self._blocks, spent)
        return self._events([{"type": f"response.{done['status']}", "response": done}])

    def failed(self, problem: EdgekitError) -> bytes:
        """As `Wire`."""
        shape = common.error(problem)["error"]
        return self._events(
            [{"type": "error", "code": shape["code"], "message": shape["message"], "param": shape["param"]}]
        )

    def ping(self) -> bytes:
        """As `Wire`."""
        return sse.PING

    def _events(self, shapes: Sequence[Json]) -> bytes:
        pieces = []
        for shape in shapes:
            name = str(shape["type"]).encode("ascii")
            pieces.append(b"event: " + name + b"\n" + sse.event(shape | {"sequence_number": self._sent}))
            self._sent += 1
        return b"".join(pieces)

    def whole(self, events: Sequence[Event], spent: Spent) -> Json:
        """The answer in one piece."""
        for event in events:
            list(self._blocks.push(event))
        return _ended(self._head, self._blocks, spent)


def _ended(head: ResponseHead, blocks: Blocks, spent: Spent) -> Json:
    cut = blocks.reason == "length"
    items = [_item(block, "completed", head) for block in blocks.all]
    if cut and items:
        items[-1]["status"] = "incomplete"
    return _response(head, "incomplete" if cut else "completed", items, "max_output_tokens" if cut else None, spent)


def _response(head: ResponseHead, status: str, output: list[Json], cut_by: str | None, spent: Spent | None) -> Json:
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": status,
        "error": None,
        "incomplete_details": None if cut_by is None else {"reason": cut_by},
        "model": head.model,
        "output": output,
        "previous_response_id": None,
        "store": False,
        "background": False,
        "truncation": "disabled",
        "usage": None if spent is None else _usage(spent),
        **head.asked,
    }


def _usage(spent: Spent) -> Json:
    return {
        "input_tokens": spent.input,
        "input_tokens_details": {"cached_tokens": spent.cached, "cache_write_tokens": 0},
        "output_tokens": spent.output,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.input + spent.output,
    }


# --- items ----------------------------------------------------------------------------------


def _item_id(block: Block, head: ResponseHead) -> str:
    return f"{_PREFIX[block.kind]}{head.id.removeprefix('resp_')}_{block.index}"


def _item(block: Block, status: str, head: ResponseHead) -> Json:
    name = _item_id(block, head)
    if block.kind == "call":
        return {
            "id": name,
            "type": "function_call",
            "status": status,
            "call_id": block.id,
            "name": block.name,
            "arguments": block.text,
        }
    parts = [_part(block, head)] if block.text else []
    if block.kind == "reasoning":
        return {"id": name, "type": "reasoning", "status": status, "summary": [], "content": parts}
    return {"id": name, "type": "message", "status": status, "role": "assistant", "content": parts}


def _part(block: Block, head: ResponseHead, *, text: str | None = None) -> Json:
    said = block.text if text is None else text
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": said}
    logprobs = _logprobs(block, head) if text is None else []
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": logprobs}


def _logprobs(step: Block | Grown, head: ResponseHead) -> list[Json]:
    return [] if head.speller is None else [_logprob(token, head.speller) for token in step.logprobs]


def _logprob(token: TokenLogprob, speller: Speller) -> Json:
    return _likely(token.id, token.logprob or 0.0, speller) | {
        "top_logprobs": [_likely(id_, logprob, speller) for id_, logprob in token.top]
    }


def _likely(token_id: int, logprob: float, speller: Speller) -> Json:
    raw = speller.spell(token_id)
    return {"token": token_text(raw), "bytes": list(raw), "logprob": finite(logprob)}


def _step(step: Step, head: ResponseHead) -> list[Json]:
    block = step.block
    where: Json = {"output_index": block.index, "item_id": _item_id(block, head)}
    match step:
        case Opened():
            item = _item(block, "in_progress", head)
            shapes: list[Json] = [{"type": "response.output_item.added", "output_index": block.index, "item": item}]
            if block.kind != "call":
                part = _part(block, head, text="")
                shapes.append({"type": "response.content_part.added", **where, "content_index": 0, "part": part})
            return shapes
        case Grown(piece=piece):
            return [_delta(step, where, piece, head)]
        case Closed():
            return [*_done(block, where, head), _item_done(block, head)]


def _delta(step: Grown, where: Json, piece: str, head: ResponseHead) -> Json:
    if step.block.kind == "call":
        return {"type": "response.function_call_arguments.delta", **where, "delta": piece}
    if step.block.kind == "reasoning":
        return {"type": "response.reasoning_text.delta", **where, "content_index": 0, "delta": piece}
    logprobs = _logprobs(step, head)
    return {
        "type": "response.output_text.delta",
        **where,
        "content_index": 0,
        "delta": piece,
        "logprobs": logprobs,
    }


def _done(block: Block, where: Json, head: ResponseHead) -> list[Json]:
    if block.kind == "call":
        kind = "response.function_call_arguments.done"
        return [{"type": kind, **where, "name": block.name, "arguments": block.text}]
    closed = {"type": "response.content_part.done", **where, "content_index": 0, "part": _part(block, head)}
    if block.kind == "reasoning":
        return [{"type": "response.reasoning_text.done", **where, "content_index": 0, "text": block.text}, closed]
    said = {"type": "response.output_text.done", **where, "content_index": 0, "text": block.text}
    return [said | {"logprobs": _logprobs(block, head)}, closed]


def _item_done(block: Block, head: ResponseHead) -> Json:
    item = _item(block, "completed", head)
    return {"type": "response.output_item.done", "output_index": block.index, "item": item}
