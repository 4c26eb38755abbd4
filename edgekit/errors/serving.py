"""Requests, and the agent that serves them."""

from dataclasses import dataclass, field
from typing import ClassVar

from edgekit.errors.base import EdgekitError

# --- requests -------------------------------------------------------------------------------


@dataclass(eq=False)
class RequestError(EdgekitError):
    """The request cannot be served."""

    exit_code, http_status, type = 40, 400, "invalid_request_error"
    param: ClassVar[str | None] = None


@dataclass(eq=False)
class InvalidRequest(RequestError):
    """{problem}"""

    problem: str
    param: str | None = field(default=None, kw_only=True)  # type: ignore[misc]  # known per request only
    exit_code = 41


@dataclass(eq=False)
class ContextOverflow(RequestError):
    """This model's maximum context length is {context_tokens} tokens. However, your messages
    resulted in {prompt_tokens} tokens. Please reduce the length of the messages."""

    prompt_tokens: int
    context_tokens: int
    exit_code, code = 42, "context_length_exceeded"
    param = "messages"


@dataclass(eq=False)
class UnknownModel(RequestError):
    """The model {model!r} does not exist. This agent serves: {known}."""

    model: str
    known: str
    exit_code, http_status, type, code = 43, 404, "not_found_error", "model_not_found"
    param = "model"


@dataclass(eq=False)
class TemplateError(RequestError):
    """The model's chat template refused these messages: {problem}"""

    problem: str
    exit_code = 44
    param = "messages"


@dataclass(eq=False)
class RequestTooLarge(RequestError):
    """The request body is larger than {limit_bytes:,} bytes."""

    limit_bytes: int
    exit_code, http_status = 45, 413


@dataclass(eq=False)
class RouteError(RequestError):
    """{problem}"""

    problem: str
    http_status: int = field(default=404, kw_only=True)  # type: ignore[misc]  # 403, 404, 405 or 415
    exit_code, type = 46, "invalid_request_error"


@dataclass(eq=False)
class Unauthorised(RequestError):
    """{problem}"""

    problem: str
    exit_code, http_status, type, code = 47, 401, "authentication_error", "invalid_api_key"
    hint = "`edgekit keys` lists and makes keys; send one as `Authorization: Bearer KEY`."


@dataclass(eq=False)
class Forbidden(RequestError):
    """{problem}"""

    problem: str
    exit_code, http_status, type, code = 48, 403, "permission_error", "insufficient_scope"


@dataclass(eq=False)
class QuotaExceeded(RequestError):
    """{problem}"""

    problem: str
    retry_after_s: int = 1
    exit_code, http_status, type, code = 49, 429, "rate_limit_error", "rate_limit_exceeded"


# --- the agent ------------------------------------------------------------------------------


@dataclass(eq=False)
class ServerError(EdgekitError):
    """The agent cannot answer: {problem}"""

    problem: str
    exit_code = 50


@dataclass(eq=False)
class Overloaded(ServerError):
    """The agent is busy: {problem}"""

    retry_after_s: int = 1
    exit_code, http_status, code = 51, 503, "overloaded"


@dataclass(eq=False)
class ShuttingDown(ServerError):
    """The agent is stopping: {problem}"""

    exit_code, http_status, code = 52, 503, "shutting_down"


@dataclass(eq=False)
class AddressInUse(ServerError):
    """Cannot listen on {problem}"""

    exit_code = 53
    hint = "Another program uses that port: choose one with --port, or --port 0 for any free one."


@dataclass(eq=False)
class StorageFailed(ServerError):
    """The agent cannot write what it has to keep: {problem}"""

    exit_code, http_status, code = 54, 503, "storage_failed"
    hint = "Free some space on the disk of EDGEKIT_HOME, or see that it may be written."
