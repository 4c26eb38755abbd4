"""What responses and messages look like, for the API's document; the replies themselves are built as dicts."""

from typing import Any, Literal

from msgspec import Struct


class CachedInput(Struct, kw_only=True):
    """Tokens of the input that did not have to be read again."""

    cached_tokens: int
    cache_write_tokens: int


class ReasonedOutput(Struct, kw_only=True):
    """Tokens of the output that are reasoning."""

    reasoning_tokens: int


class ResponseUsage(Struct, kw_only=True):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: CachedInput
    output_tokens: int
    output_tokens_details: ReasonedOutput
    total_tokens: int


class ResponseObject(Struct, kw_only=True):
    """OpenAI's response. `output` are items: messages, function calls, reasoning."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[dict[str, Any]]
    incomplete_details: dict[str, str] | None
    usage: ResponseUsage | None
    store: Literal[False]


class ResponseEvent(Struct, kw_only=True):
    """One event of a streamed response."""

    type: str
    sequence_number: int


class MessageUsage(Struct, kw_only=True):
    """Tokens of a message; `input_tokens` are those that were not cached."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageObject(Struct, kw_only=True):
    """Anthropic's message. `content` are blocks: text, tool_use, thinking."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(Struct, kw_only=True):
    """One event of a streamed message."""

    type: str


class TokenCount(Struct, kw_only=True):
    """Tokens of a prompt."""

    input_tokens: int
