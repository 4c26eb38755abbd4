"""What every error has."""

import string
from dataclasses import dataclass
from typing import ClassVar


@dataclass(eq=False)
class EdgekitError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    hint: ClassVar[str] = ""

    def __str__(self) -> str:
        """The sentence: the class docstring with this error's fields filled in."""
        template = " ".join((self.__doc__ or "").split())
        return string.Formatter().vformat(template, (), vars(self))
