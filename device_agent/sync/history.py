"""What became of the last updates, and when somebody last looked. Kept for people: nothing depends on it.

So it is neither locked nor synced: a power cut may take its last line, and a file that cannot be read counts as none.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from device_agent.sync.lock import FOLDER
from device_agent.sync.records import Clock, Ending, Outcome

log = logging.getLogger(__name__)

FILE = "history.json"
MOST = 20
UPDATE = "update"
"""What asks a repository; all else is done without one."""
_MOST_BYTES = 256 << 10
_MOST_REASON_CHARS = 500


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome. `at` is Unix seconds; `does` is who wanted it: "update", "rollback", "pin" ..."""

    at: float
    does: str
    channel: str
    ending: Ending
    release: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=_MOST_REASON_CHARS)] = ""
    exit_code: int = 0
    moved_bytes: int = 0
    reused_bytes: int = 0
    seconds: float = 0.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `checked_at` is when a repository was last asked and could be trusted; the newest entry is first."""

    checked_at: float | None = None
    succeeded_at: float | None = None
    entries: tuple[Entry, ...] = ()

    def last(self, channel: str) -> Entry | None:
        """The newest one of a channel."""
        return next((entry for entry in self.entries if entry.channel == channel), None)


class History:
    """Of the agent whose folder is `home`."""

    def __init__(self, home: Path, *, clock: Clock) -> None:
        self._path = home / FOLDER / FILE
        self._clock = clock

    def read(self) -> Told:
        """What was kept; never raises."""
        try:
            with self._path.open("rb") as stream:
                return msgspec.json.decode(stream.read(_MOST_BYTES), type=Told)
        except FileNotFoundError:
            return Told()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.info("%s cannot be read, and begins anew: %s", self._path, error)
            return Told()

    def checked(self) -> None:
        """A repository was asked."""
        self._change(lambda told: msgspec.structs.replace(told, checked_at=self._clock()))

    def note(self, does: str, outcomes: Iterable[Outcome]) -> None:
        """These became of what somebody wanted. One that says what the channel's last one said replaces it."""
        now = self._clock()
        new = tuple(_entry(outcome, does, now) for outcome in outcomes)

        def change(told: Told) -> Told:
            said = {_gist(entry) for entry in new}
            newest = {told.last(entry.channel) for entry in new}
            rest = [old for old in told.entries if old not in newest or _gist(old) not in said]
            fine = [entry.exit_code == 0 for entry in new] if does == UPDATE else []
            return Told(
                checked_at=now if any(fine) else told.checked_at,
                succeeded_at=now if fine and all(fine) else told.succeeded_at,
                entries=(*new, *rest)[:MOST],
            )

        self._change(change)

    def _change(self, change: Callable[[Told], Told]) -> None:
        raw = msgspec.json.encode(change(self.read()))
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}")
        try:
            temporary.write_bytes(raw)
            temporary.replace(self._path)
        except OSError as error:
            log.warning("what became of the update cannot be kept: %s", error)
            with contextlib.suppress(OSError):
                temporary.unlink()


def _gist(entry: Entry) -> tuple[object, ...]:
    return entry.channel, entry.does, entry.ending, entry.release, entry.reason


def _entry(outcome: Outcome, does: str, now: float) -> Entry:
    return Entry(
        at=now,
        does=does,
        channel=outcome.channel,
        ending=outcome.ending,
        release=outcome.release,
        reason=outcome.reason[:_MOST_REASON_CHARS],
        exit_code=outcome.exit_code,
        moved_bytes=outcome.moved_bytes,
        reused_bytes=outcome.reused_bytes,
        seconds=outcome.seconds,
    )
