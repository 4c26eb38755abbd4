"""Several sources of one repository behind one: which is asked next, when, and when it is given up.

The first that works is used. One that cannot be reached rests for a while, one that was wrong goes last for good, and
a stream goes on from where it was at the next one. When all of them failed, there is a pause (exponential backoff with
jitter, at least what the servers ask for) and another round, as long as there is some progress.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal, Protocol

from device_agent.sync.records import Source, Stop
from device_agent.sync.transport.surroundings import Surroundings
from device_agent.sync.transport.throttle import Throttle
from edgekit.errors import CorruptRelease, NotAdmitted, NotInRepository, SyncError, Unreachable

ROUNDS = 5
"""Without progress, until the whole is given up; the link comes back later."""

PROGRESS_BYTES = 1 << 14
"""Less does not count: a server that cuts each connection after a byte makes no progress."""

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 60.0
FIRST_REST_S, MOST_REST_S = 15.0, 600.0

Ask = Callable[[Source, int], Iterator[bytes]]
"""Ask a source for what is needed, but for that many bytes at its beginning, which are here."""


class Resting(Protocol):
    """A source that may be told to wait."""

    @property
    def rest_s(self) -> float:
        """How long the server asked to be left alone, with its last answer."""


class Mirror:
    """A source and how it has been. One that is `remote` is held back by the cap and the hours."""

    def __init__(self, source: Source, *, resting: Resting | None = None) -> None:
        self.source = source
        self.blames = 0
        self._resting = resting
        self._failures = 0
        self._rests_until = 0.0

    @property
    def remote(self) -> bool:
        """Whether it is across a network."""
        return self._resting is not None

    @property
    def asked_rest_s(self) -> float:
        """How long it wants to be left alone."""
        return self._resting.rest_s if self._resting else 0.0

    def rests(self, now: float) -> bool:
        """Whether others come first for now."""
        return now < self._rests_until

    def failed(self, error: SyncError, now: float) -> None:
        """It did not help. One that was wrong is blamed; one that does not have something is none the worse for it."""
        if isinstance(error, CorruptRelease):
            self.blames += 1
        if isinstance(error, NotInRepository | CorruptRelease):
            self.answered()
            return
        self._rests_until = now + max(self.asked_rest_s, min(MOST_REST_S, FIRST_REST_S * 2**self._failures))
        self._failures = min(self._failures + 1, 16)

    def answered(self) -> None:
        """It could be reached."""
        self._failures = 0
        self._rests_until = 0.0


class _Failures:
    """What the mirrors of one round said."""

    def __init__(self) -> None:
        self._errors: list[SyncError] = []

    def add(self, error: SyncError) -> None:
        """Another one."""
        self._errors.append(error)

    @property
    def settled(self) -> bool:
        """Whether waiting would not help: one says that there is no such file, or all were wrong or let nobody in."""
        missing = any(isinstance(error, NotInRepository) for error in self._errors)
        hopeless = CorruptRelease | NotAdmitted
        return missing or (bool(self._errors) and all(isinstance(error, hopeless) for error in self._errors))

    @property
    def outcome(self) -> SyncError:
        """That there is no such file counts more than what may pass, and that more than a wrong answer."""
        return min(self._errors, key=_rank)


def _rank(error: SyncError) -> int:
    kinds = (NotInRepository, Unreachable)
    return next((rank for rank, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))


class Mirrors(Source):
    """One source made of several, the best first. Raises what the last one said if none could help."""

    def __init__(
        self, mirrors: Sequence[Mirror], *, throttle: Throttle, stop: Stop, surroundings: Surroundings
    ) -> None:
        self._mirrors = tuple(mirrors)
        self._throttle = throttle
        self._stop = stop
        self._around = surroundings
        self._last = self._mirrors[0]

    @property
    def name(self) -> str:
        """The one that is asked first now."""
        return self._ordered()[0].source.name

    @property
    def holds(self) -> Literal["packs", "files"]:
        """As the first one does; another kind of source cannot help."""
        return self._mirrors[0].source.holds

    def read(self, path: str, *, limit: int) -> bytes:
        """A whole file. Raises NotInRepository once all that can be reached say so, Unreachable, CorruptRelease."""

        def ask(source: Source, _: int) -> Iterator[bytes]:
            yield source.read(path, limit=limit)

        return b"".join(self._pieces(ask, metadata=True))

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """A part of a file, from as many mirrors as it takes. Raises NotInRepository, Unreachable, CorruptRelease."""

        def ask(source: Source, done: int) -> Iterator[bytes]:
            return source.stream(path, start=start + done, length=length - done, size=size)

        return self._pieces(ask, metadata=False)

    def blame(self) -> None:
        """What came last was wrong: the others first."""
        self._last.blames += 1
        self._last.source.blame()

    def close(self) -> None:
        """Close all."""
        for mirror in self._mirrors:
            mirror.source.close()

    def _ordered(self) -> list[Mirror]:
        now = self._around.ticks()
        return sorted(self._mirrors, key=lambda mirror: (mirror.blames, mirror.rests(now)))

    def _pieces(self, ask: Ask, *, metadata: bool) -> Iterator[bytes]:
        """What `ask` gets, from one mirror after the other, round after round."""
        done = fruitless = 0
        while True:
            begun, failures = done, _Failures()
            for mirror in self._ordered():
                if failures.settled and mirror.rests(self._around.ticks()):
                    break
                held = mirror.remote and not metadata
                self._throttle.check(hours=held)
                try:
                    with contextlib.closing(self._from(mirror, ask, done, held=held)) as pieces:
                        for piece in pieces:
                            done += len(piece)
                            yield piece
                except (Unreachable, CorruptRelease) as error:
                    self._throttle.check(hours=held)  # if that was the reason, no mirror is at fault
                    failures.add(error)
                    mirror.failed(error, self._around.ticks())
                else:
                    return
            fruitless = 0 if done - begun >= PROGRESS_BYTES else fruitless + 1
            if failures.settled or fruitless == ROUNDS:
                raise failures.outcome
            self._pause(fruitless)

    def _from(self, mirror: Mirror, ask: Ask, done: int, *, held: bool) -> Generator[bytes]:
        """Pieces of one mirror, no faster than allowed."""
        self._last = mirror
        for piece in ask(mirror.source, done):
            mirror.answered()
            yield piece
            if mirror.remote:
                self._throttle.paid(len(piece))
            self._throttle.check(hours=held)

    def _pause(self, fruitless: int) -> None:
        now = self._around.ticks()
        pause = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2 ** max(0, fruitless - 1)) * (0.5 + self._around.chance())
        asked = min(mirror.asked_rest_s if mirror.rests(now) else 0.0 for mirror in self._mirrors)
        if self._stop.wait(max(pause, asked)):
            raise Unreachable("the update was stopped")
