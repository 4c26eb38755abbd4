"""Keys on disk: EDGEKIT_HOME/keys.json and EDGEKIT_HOME/admin-token, both for their owner's eyes only.

JSON and not the ledger's database: a damaged ledger is moved aside and begun anew, which must never let anybody in or
out; and a file that changes a few times in a device's life, whole each time, is what write_durably is for. The command
line and a running agent change it under one lock, and the agent sees a change at the next request.
"""

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from device_agent.access.keys import ADMIN_ID, SCOPES, SECRET_PREFIX, Key, KeyRing, KeyWish, new_secret
from edgekit.errors import InvalidRequest, RouteError, StorageFailed, UsageError
from edgekit.files import create_durably, locked, write_durably

KEYS, LOCK, ADMIN_TOKEN = "keys.json", "keys.lock", "admin-token"

_PRIVATE = 0o600
_SECRET_CHARS = len(SECRET_PREFIX) + 43
_Stamp = tuple[int, int, int]
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class KeyFile:
    """The keys of the agent in `home`, and its admin token. From any thread, and beside other processes."""

    def __init__(self, home: Path, admin_secret: str, *, clock: Callable[[], float] = time.time) -> None:
        self._path = home / KEYS
        self._lock_path = home / LOCK
        self._admin_secret = admin_secret
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(self._path)  # before reading: a change in between is seen at the next look
        self._ring = _read(self._path) or KeyRing.empty()

    @classmethod
    def open(cls, home: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Those of `home`, which is made if it is missing, as is the admin token.

        Raises UsageError for a damaged file of keys: to begin a new one would lock everybody out without a word.
        Raises StorageFailed if nothing can be written there.
        """
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(home, admin_token(home), clock=clock)
        except OSError as error:
            raise StorageFailed(f"{home}: {error}") from error

    def ring(self) -> KeyRing:
        """All keys as they are on disk now."""
        stamp = _stamp(self._path)
        with self._lock:
            if stamp != self._stamp:
                self._stamp = stamp  # first: what cannot be read is reported once, not at every request
                self._refresh()
            return self._ring

    def all(self) -> tuple[Key, ...]:
        """Each key but the admin token, revoked ones too."""
        return self.ring().keys

    def find(self, secret: str) -> Key | None:
        """The key, or admin token, with this secret."""
        ring = self.ring()
        return ring.find(secret, also=(self.admin(ring),))

    def admin(self, ring: KeyRing) -> Key:
        """The admin token, as a key."""
        digest = ring.digest_of(self._admin_secret)
        return Key(id=ADMIN_ID, name="admin token", digest=digest, scopes=SCOPES, created=0)

    def named(self, key_id: str) -> Key | None:
        """The key with this id, the admin token's being `ADMIN_ID`."""
        ring = self.ring()
        return self.admin(ring) if key_id == ADMIN_ID else ring.named(key_id)

    def add(self, wish: KeyWish) -> tuple[Key, str]:
        """A new key, and its secret. Raises InvalidRequest or StorageFailed."""

        def change(ring: KeyRing) -> tuple[KeyRing, tuple[Key, str]]:
            new, key, secret = ring.with_new(wish, now=self._clock())
            return new, (key, secret)

        return self._change(change)

    def revoke(self, key_id: str) -> Key:
        """The key, which opens nothing any more. Raises RouteError if there is none, or StorageFailed."""
        if key_id == ADMIN_ID:
            raise InvalidRequest(f"The admin token is renewed by deleting {ADMIN_TOKEN} and starting the agent again.")

        def change(ring: KeyRing) -> tuple[KeyRing, Key]:
            found = ring.without(key_id, now=self._clock())
            if found is None:
                raise RouteError(f"There is no key {key_id[:100]!r}.")
            return found

        return self._change(change)

    def _change(self, rule: Callable[[KeyRing], tuple[KeyRing, _T]]) -> _T:
        try:
            with locked(self._lock_path), self._lock:
                self._ring, result = self._written(rule)
                self._stamp = _stamp(self._path)
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error}") from error
        return result

    def _written(self, rule: Callable[[KeyRing], tuple[KeyRing, _T]]) -> tuple[KeyRing, _T]:
        """What a rule makes of the keys on disk, which may be newer than those in memory."""
        new, result = rule(_read(self._path) or self._ring)
        write_durably(self._path, new.to_bytes(), mode=_PRIVATE)
        return new, result

    def _refresh(self) -> None:
        """Take over what is on disk; a file that is gone has revoked every key."""
        try:
            self._ring = _read(self._path) or KeyRing(salt=self._ring.salt)
        except (OSError, UsageError) as error:
            _log.error("the keys in memory stay in force: %s", error)


def admin_token(home: Path) -> str:
    """The admin token of `home`, made if there is none. One that others can read is closed to them, with a warning.

    Raises OSError.
    """
    path = home / ADMIN_TOKEN
    for _ in range(2):
        try:
            found = path.read_bytes()[:1_000].decode("ascii", "replace").strip()
        except FileNotFoundError:
            found = None
        if found is None:  # what was seen counts, and not what another process may have made since
            try:
                create_durably(path, f"{new_secret()}\n".encode(), mode=_PRIVATE)
            except FileExistsError:
                _log.debug("another process made %s", path)
        elif found.startswith(SECRET_PREFIX) and len(found) >= _SECRET_CHARS:
            _close_to_others(path)
            return found
        else:  # emptied or cut by something else than this program
            _log.warning("%s holds no token: a new one is made", path)
            write_durably(path, f"{new_secret()}\n".encode(), mode=_PRIVATE)
    return path.read_text(encoding="ascii").strip()


def _close_to_others(path: Path) -> None:
    if os.name != "posix" or not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return
    path.chmod(_PRIVATE)
    _log.warning("other users could read %s; they cannot any more, but delete it if they should not know it", path)


def _read(path: Path) -> KeyRing | None:
    """The keys in a file, None if there is no file. Raises UsageError or OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return KeyRing.parse(data)
    except ValueError as error:
        raise UsageError(
            f"{path} is no file of keys: {error}. Put a copy back, or delete it and make new keys."
        ) from error


def _stamp(path: Path) -> _Stamp:
    """Changes whenever the file does: each write makes a new one (its inode), even within the clock's grain."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
