"""The one thread that loads and closes models, and the count of who uses them."""

import collections
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from device_agent.shelf import room
from device_agent.shelf.records import Entry, Opened, Opener, ShelfSettings, Tally
from edgekit.errors import BundleError, EdgekitError, Overloaded, ShuttingDown

log = logging.getLogger(__name__)

_UNLOAD_WAIT_S = 5.0
_JOIN_S = 10.0


class Retired(Exception):
    """The place is no longer on the shelf: whoever asked is to look for the name again."""


@dataclass(eq=False, slots=True)
class Load:
    """One attempt to load a model, for everybody who waits for it."""

    done: bool = False
    error: EdgekitError | None = None


@dataclass(eq=False, slots=True)
class Place:
    """A bundle's place on the shelf, and what is there. All but `entry` belongs to the keeper."""

    entry: Entry
    opened: Opened | None = None
    load: Load | None = None
    leaving: Opened | None = None  # what is being closed
    leases: int = 0
    waiting: int = 0
    used_at: float = 0.0
    unwanted: bool = False
    retired: bool = False
    failure: EdgekitError | None = None
    retry_at: float = 0.0
    bytes: int = 0

    @property
    def held(self) -> bool:
        """Whether somebody uses it or is about to."""
        return self.leases > 0 or self.waiting > 0


class Keeper:
    """Fills places when they are needed, and empties them when nobody holds them and memory or time says so.

    `available` says how many bytes of memory are free.
    """

    def __init__(
        self,
        open_bundle: Opener,
        settings: ShelfSettings,
        *,
        clock: Callable[[], float],
        available: Callable[[], int],
    ) -> None:
        self._open = open_bundle
        self._settings = settings
        self._clock = clock
        self._available = available
        self._thread = threading.Thread(target=self._work, name="edgekit-shelf", daemon=True)
        self._changed = threading.Condition()  # guards everything below, and the places
        self._closing = False
        self._filled: list[Place] = []
        self._wanted: collections.deque[Place] = collections.deque()
        self._tallies: dict[str, Tally] = {}

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    @property
    def settings(self) -> ShelfSettings:
        """As they are now."""
        return self._settings

    def adjust(self, settings: ShelfSettings, open_bundle: Opener) -> None:
        """Keep to other settings, and load otherwise, from now on."""
        with self._changed:
            self._settings, self._open = settings, open_bundle
            self._changed.notify_all()

    # --- any thread -------------------------------------------------------------------------------

    def hold(self, place: Place, wait_s: float | None) -> Opened:
        """What is in a place, which stays until it is given back as often. Waits up to `wait_s` for it to be loaded.

        Raises what loading raised, ShuttingDown, Overloaded if it takes too long, and Retired.
        """
        with self._changed:
            while True:
                self._check(place)
                if place.opened is not None:
                    place.leases += 1
                    place.used_at = self._clock()
                    return place.opened
                self._await(place, wait_s)

    def give_back(self, place: Place) -> None:
        """One of those who hold it does so no more."""
        with self._changed:
            place.leases -= 1
            place.used_at = self._clock()
            self._changed.notify_all()

    def wake(self, place: Place) -> None:
        """Begin to load it, unless it is loaded or failed a moment ago; nobody waits for it."""
        with self._changed:
            may = not self._closing and not place.retired and self._clock() >= place.retry_at
            if may and place.opened is None:
                self._attempt(place)

    def describe(self, place: Place, entry: Entry) -> None:
        """The bundle in a place is described by another entry now: its name or its adapters may be others."""
        with self._changed:
            opened = place.opened if place.entry.adapters != entry.adapters else None
            if opened is None:
                place.entry = entry
                return
            place.leases += 1  # it must not be closed meanwhile
        opened.adapt(entry)  # before requests may ask for what is new
        with self._changed:
            place.entry = entry
            place.leases -= 1
            self._changed.notify_all()

    def unload(self, place: Place) -> None:
        """Empty it once nobody holds it, and wait a moment for that."""
        with self._changed:
            place.unwanted = place.opened is not None
            self._changed.notify_all()
            if not place.held:
                self._changed.wait_for(lambda: self._is_empty(place) or self._closing, timeout=_UNLOAD_WAIT_S)

    def retire(self, places: Iterable[Place]) -> None:
        """These are no longer on the shelf: they are emptied when the last one who holds them gives them back."""
        with self._changed:
            for place in places:
                place.retired = True
                if place in self._wanted:
                    self._wanted.remove(place)
                    self._end_load(place, None)
            self._changed.notify_all()

    def tidy(self) -> None:
        """Look again at what may be closed."""
        with self._changed:
            self._changed.notify_all()

    def tallies(self) -> dict[str, Tally]:
        """What each model's engines have done so far, by id."""
        with self._changed:
            found = dict(self._tallies)
            running = [(place.entry.id, place.opened.model) for place in self._filled if place.opened is not None]
        for name, model in running:
            if model is not None:
                found[name] = found.get(name, Tally()).plus(model.state())
        return found

    def close(self) -> None:
        """Fill nothing more, and empty all places, whoever holds them. Waits, but not for a load that takes long."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        with self._changed:
            emptied = [self._take(place) for place in list(self._filled)]
        for place in emptied:
            self._shut(place)

    # --- callers hold the lock --------------------------------------------------------------------

    def _check(self, place: Place) -> None:
        if self._closing:
            raise ShuttingDown("no new requests are taken")
        if place.retired:
            raise Retired
        if place.opened is None and place.failure is not None and self._clock() < place.retry_at:
            raise place.failure.with_traceback(None)

    def _await(self, place: Place, wait_s: float | None) -> None:
        load = self._attempt(place)
        place.waiting += 1
        try:
            over = self._changed.wait_for(lambda: load.done or self._closing, timeout=wait_s)
        finally:
            place.waiting -= 1
        if load.error is not None:
            raise load.error.with_traceback(None)  # the same one for all who wait; its traceback is in the log
        if not over:
            raise Overloaded(f"{place.entry.id} is being loaded, which takes long.", room.RETRY_AFTER_S)

    def _attempt(self, place: Place) -> Load:
        """The load that is on its way, or a new one."""
        if place.load is None:
            place.load = Load()
            self._wanted.append(place)
            self._changed.notify_all()
        return place.load

    def _end_load(self, place: Place, error: EdgekitError | None) -> None:
        if place.load is not None:
            place.load.error, place.load.done = error, True
            place.load = None
        self._changed.notify_all()

    def _take(self, place: Place) -> Place:
        """Empty a place. What was in it is leaving, and is still to be shut."""
        opened, place.opened, place.unwanted = place.opened, None, False
        place.leaving = opened
        self._filled.remove(place)
        if opened is not None and opened.model is not None:
            tally = self._tallies.get(place.entry.id, Tally())
            self._tallies[place.entry.id] = tally.plus(opened.model.state())
        return place

    @staticmethod
    def _is_empty(place: Place) -> bool:
        return place.opened is None and place.leaving is None

    def _due(self) -> Place | None:
        """One that is to be emptied now."""
        now, limit_s = self._clock(), self._settings.idle_unload_s
        for place in self._filled:
            idle = limit_s is not None and now - place.used_at >= limit_s
            if not place.held and (idle or place.retired or place.unwanted):
                return place
        return None

    def _patience_s(self) -> float | None:
        """Seconds until some model has been idle for long enough; None if none will be."""
        limit_s = self._settings.idle_unload_s
        used = [place.used_at for place in self._filled if not place.held]
        return None if limit_s is None or not used else max(0.0, min(used) + limit_s - self._clock())

    # --- the thread, without the lock -------------------------------------------------------------

    def _work(self) -> None:
        while place := self._next():
            if place.leaving is not None:
                self._shut(place)
            else:
                self._fill(place)

    def _next(self) -> Place | None:
        """A place to fill, or one with something that is leaving; None: the end."""
        with self._changed:
            while not self._closing:
                if due := self._due():
                    return self._take(due)
                if self._wanted:
                    return self._wanted.popleft()
                self._changed.wait(self._patience_s())
            return None

    def _fill(self, place: Place) -> None:
        opened, error, entry = None, None, place.entry
        try:
            for other in self._make_room(place):
                self._shut(other)
            opened = self._loaded(entry)
        except EdgekitError as found:
            error = found
        with self._changed:
            if opened is not None and place.entry.adapters != entry.adapters:  # it was described anew meanwhile
                opened.adapt(place.entry)
            place.failure = None
            if opened is not None:
                place.opened, place.used_at = opened, self._clock()
                self._filled.append(place)
            elif not isinstance(error, Overloaded):  # that passes as soon as somebody leaves
                place.failure, place.retry_at = error, self._clock() + self._settings.retry_s
            self._end_load(place, error)

    def _make_room(self, place: Place) -> list[Place]:
        """What is leaving so that a place can be filled; nobody can hold it any more. Raises Overloaded."""
        with self._changed:
            place.bytes = room.reserved_bytes(place.entry.manifest, self._settings.slots)
            taken = sum(other.bytes for other in self._filled)
            idle = sorted((other for other in self._filled if not other.held), key=lambda other: other.used_at)
            count = room.to_close(
                place.bytes,
                room.budget_bytes(self._settings.max_loaded_bytes, available=self._available(), taken=taken),
                held=[other.bytes for other in self._filled if other.held],
                idle=[other.bytes for other in idle],
                model=place.entry.id,
            )
            return [self._take(other) for other in idle[:count]]

    def _loaded(self, entry: Entry) -> Opened:
        """Raises EdgekitError, whatever went wrong."""
        log.info("loading %s from %s", entry.id, entry.folder)
        try:
            return self._open(entry)
        except EdgekitError as error:
            log.warning("%s cannot be loaded: %s", entry.id, error)
            raise
        except Exception as error:
            log.exception("%s cannot be loaded", entry.id)
            raise BundleError(str(entry.folder), f"it cannot be loaded: {type(error).__name__}") from None

    def _shut(self, place: Place) -> None:
        """Close what is leaving a place, and let go of it, so that its memory is free."""
        log.info("closing %s", place.entry.id)
        sweep = self._close_leaving(place)
        place.leaving = None
        sweep()
        with self._changed:
            self._changed.notify_all()

    @staticmethod
    def _close_leaving(place: Place) -> Callable[[], None]:
        """What is to be done once nobody refers to it any more."""
        opened = place.leaving or Opened()
        try:
            opened.close()
        except Exception:
            log.exception("%s could not be closed", place.entry.id)
        return opened.sweep
