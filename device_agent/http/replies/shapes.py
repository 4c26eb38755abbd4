"""The JSON shapes that OpenAI clients expect (platform.openai.com, API reference), as structs. Pure.

What is UNSET is left out; what is None is sent as null, since clients look for it.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

# --- in every answer ------------------------------------------------------------------------


class PromptDetails(Struct, kw_only=True):
    """Tokens of the prompt that did not have to be read again."""

    cached_tokens: int


class CompletionDetails(Struct, kw_only=True):
    """Tokens of the answer that are reasoning."""

    reasoning_tokens: int


class Usage(Struct, kw_only=True):
    """Tokens of a whole request, all its choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Timing(Struct, kw_only=True):
    """llama.cpp's names: "prompt" is reading what of it was not cached, "predicted" is decoding."""

    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


# --- chat -----------------------------------------------------------------------------------


class LikelyToken(Struct, kw_only=True):
    """A token that might have been; `bytes` is its UTF-8, for tokens that are a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(LikelyToken, kw_only=True):
    """A token that was written, and the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(Struct, kw_only=True):
    """Those of an answer or of a chunk."""

    content: list[ChatToken]
    refusal: None = None


class CallFunction(Struct, kw_only=True):
    """In a stream, `name` comes once and `arguments` in fragments."""

    name: str | UnsetType = UNSET
    arguments: str = ""


class ToolCallReply(Struct, kw_only=True):
    """A complete call; `arguments` is the text of a JSON object."""

    id: str
    type: Literal["function"] = "function"
    function: CallFunction


class ToolCallDelta(Struct, kw_only=True):
    """A part of a call: `id` and `type` come with the first one only."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: CallFunction


class ChatMessage(Struct, kw_only=True):
    """The answer; `content` is null if it is only calls."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallReply] | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    """One of `n` answers."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(Struct, kw_only=True):
    """Reply of POST /v1/chat/completions; `timings` are the first choice's."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timing | UnsetType = UNSET


class ChatDelta(Struct, kw_only=True):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(Struct, kw_only=True):
    """A chunk of one choice."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None


class ChatChunk(Struct, kw_only=True):
    """An event of a chat stream. `usage` is null until the last chunk, and left out for who did not ask."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Timing | UnsetType = UNSET


# --- completions ----------------------------------------------------------------------------


class TextLogprobs(Struct, kw_only=True):
    """Four lists of one length. The first token of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Struct, kw_only=True):
    """One answer, or in a stream a part of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class TextCompletion(Struct, kw_only=True):
    """Reply of POST /v1/completions, and an event of its stream, where `usage` is as in a ChatChunk."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Timing | UnsetType = UNSET


# --- embeddings and text --------------------------------------------------------------------


class Embedding(Struct, kw_only=True):
    """A vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, kw_only=True):
    """Nothing is written, so that there are no completion tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, kw_only=True):
    """Reply of POST /v1/embeddings, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class TokenPiece(Struct, kw_only=True):
    """A token with its text; the bytes of one that is a part of a character."""

    id: int
    piece: str | list[int]


class Tokenized(Struct, kw_only=True):
    """Reply of POST /tokenize."""

    tokens: list[int | TokenPiece]


class Detokenized(Struct, kw_only=True):
    """Reply of POST /detokenize."""

    content: str


class Rendered(Struct, kw_only=True):
    """Reply of POST /apply-template."""

    prompt: str


# --- errors ---------------------------------------------------------------------------------


class ErrorBody(Struct, kw_only=True):
    """OpenAI's error object; a context overflow adds llama.cpp's two numbers."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | UnsetType = UNSET
    n_ctx: int | UnsetType = UNSET


class ErrorReply(Struct, kw_only=True):
    """Body of every response that is no success."""

    error: ErrorBody
