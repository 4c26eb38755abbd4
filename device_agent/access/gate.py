"""The gate: who a caller is, and whether one more request of theirs may run."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from device_agent.access import limits
from device_agent.access.keyfile import KeyFile
from device_agent.access.keys import Key, Quotas
from device_agent.access.settings import AccessSettings
from device_agent.http.services import Caller, Standing
from edgekit.errors import Unauthorised

_HOUR_S = 3_600


class Totals(Protocol):
    """What the ledger tells and is told of keys."""

    def tokens_today(self, key: str, now: float) -> int:
        """Tokens read and written for a key on the UTC day of `now`, from memory."""

    def seen(self, key: str, at: float) -> None:
        """A key was used. Never raises, never waits."""


class Gate:
    """Checks keys and quotas. Requests and counts live in memory, tokens in `totals`, keys in a file."""

    def __init__(
        self,
        keys: KeyFile,
        settings: AccessSettings,
        totals: Totals,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self._settings = settings
        self._totals = totals
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._tallies: dict[str, limits.Tally] = {}
        self._seen: dict[str, int] = {}

    @classmethod
    def open(cls, home: Path, settings: AccessSettings, totals: Totals) -> Self:
        """With the keys of `home`. Raises UsageError or StorageFailed."""
        return cls(KeyFile.open(home), settings, totals)

    def identify(self, credential: str | None, *, local: bool) -> Caller:
        """Who sends this key. `local`: from a program on this machine, which may need none.

        Raises Unauthorised for one that was revoked or has expired, for whoever needs a key and has none, and for one
        that nobody made where one is needed. Nothing in how long it takes tells a wrong key from a right one's
        beginning: each digest is compared to its end.
        """
        open_to_all = local and self._settings.auth == "local"
        key = None if credential is None else self.keys.find(credential)
        if key is None:
            if open_to_all:
                return Caller()
            raise Unauthorised("This agent needs an API key." if credential is None else "Incorrect API key provided.")
        now = self._clock()
        if refusal := key.refusal(now):
            raise Unauthorised(refusal)
        self._note_use(key, now)
        return Caller(key=key.id, name=key.name, scopes=frozenset(key.scopes))

    def admit(self, caller: Caller) -> "Admitted":
        """Count a request that makes tokens. Raises QuotaExceeded, or Unauthorised for a key that has just gone."""
        quotas = self._quotas(caller)
        now = self._clock()
        tokens = 0 if quotas.tokens_per_day is None else self._totals.tokens_today(caller.key, now)
        with self._lock:
            ticks = self._ticks()
            tally = self._tallies.setdefault(caller.key, limits.Tally())
            limits.check(quotas, tally, tokens_today=tokens, now=now, ticks=ticks)
            tally.begin(ticks, timed=quotas.requests_per_minute is not None)
        return Admitted(self, caller.key)

    def standing(self, caller: Caller) -> Standing:
        """What is left of a caller's quotas."""
        quotas = self._quotas(caller)
        now = self._clock()
        tokens = 0 if quotas.tokens_per_day is None else self._totals.tokens_today(caller.key, now)
        with self._lock:
            tally = self._tallies.get(caller.key, limits.Tally())
            return limits.standing(quotas, tally, tokens_today=tokens, now=now, ticks=self._ticks())

    def leave(self, key: str) -> None:
        """A request that was admitted has ended; see `Admitted.close`."""
        with self._lock:
            self._tallies[key].running -= 1

    def _quotas(self, caller: Caller) -> Quotas:
        """Raises Unauthorised for a key that has gone since it was identified."""
        if not caller.key:
            return Quotas()
        key = self.keys.named(caller.key)
        if key is None:
            raise Unauthorised("This API key was removed.")
        return key.quotas

    def _note_use(self, key: Key, now: float) -> None:
        """By the hour: finer would only wear the disk."""
        hour = int(now // _HOUR_S)
        if self._seen.get(key.id) != hour:
            self._seen[key.id] = hour
            self._totals.seen(key.id, hour * _HOUR_S)


class Admitted:
    """A request that counts as running until it is closed."""

    def __init__(self, gate: Gate, key: str) -> None:
        self._gate = gate
        self._key = key
        self._lock = threading.Lock()
        self._open = True

    def close(self) -> None:
        """It has ended; again is harmless. From any thread."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._gate.leave(self._key)
