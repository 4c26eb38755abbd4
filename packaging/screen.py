"""Progress for a person: one live line on a terminal, plain lines in a log."""

import shutil
from typing import TextIO


class Screen:
    """Writes to `stream`, which is standard error: standard output belongs to results."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._live = False

    def live(self, text: str) -> None:
        """Replace the live line; nothing at all where there is no terminal."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + text[:width])
            self._stream.flush()
            self._live = True

    def line(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(("\r\x1b[K" if self._live else "") + text + "\n")
        self._stream.flush()
        self._live = False

    def log(self, text: str) -> None:
        """A line that only a log needs, because a terminal showed it live."""
        if not self._terminal:
            self.line(text)
