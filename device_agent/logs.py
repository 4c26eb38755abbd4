"""How the agent logs: lines for people, or one JSON object a line for programs. Never a prompt's text, never a key."""

import contextvars
import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Literal, TextIO

Format = Literal["text", "json"]

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""Of the request that this thread serves."""

_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), 127)} | {9: "\t"}


class TextFormatter(logging.Formatter):
    """A line for people. Line breaks and other controls of a message are escaped: it may quote what somebody sent."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without a traceback."""
        told = [super().formatMessage(record), *(f"{key}={value}" for key, value in _fields(record).items())]
        if found := request_id.get():
            told.append(f"[{found}]")
        return " ".join(told).translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and what the record has in `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.gmtime(record.created)
        line: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if found := request_id.get():
            line["request_id"] = found
        line |= _fields(record)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What a record was given besides its message, as `extra={"fields": {...}}`."""
    found = getattr(record, "fields", None)
    return {key: value for key, value in found.items() if value is not None} if isinstance(found, Mapping) else {}


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def set_up(form: Format, level: str, stream: TextIO | None = None) -> None:
    """Send the log of the whole process to `stream` (standard error) in this form; called once, by the program."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_FORMATTERS[form]())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
