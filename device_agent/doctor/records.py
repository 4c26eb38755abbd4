"""What a check says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["green", "amber", "red"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: green is as it should be, amber works but not as well as it could, red does not work.

    `detail` is what was found, `hint` what to do next; a green one has no hint.
    """

    check: str
    status: Status
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; names of `headers` are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Ask(Protocol):
    """Sends one request to the agent."""

    def __call__(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """`body` goes as JSON unless it is None. Raises OSError if nobody answers."""
