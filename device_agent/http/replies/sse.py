"""Server-sent events as bytes (WHATWG HTML, section 9.2). Pure."""

import json
from typing import Final

DONE: Final = b"data: [DONE]\n\n"
"""How OpenAI ends a stream."""

PING: Final = b": ping\n\n"
"""A comment: clients skip it, and proxies see that the connection lives."""


def event(value: object) -> bytes:
    r"""One event with `value` as JSON.

    All ASCII on purpose: naive clients decode each network packet by itself, or split lines at U+2028 and U+0085.
    """
    return b"data: " + json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n\n"
