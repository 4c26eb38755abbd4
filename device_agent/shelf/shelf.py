"""Shelf: what there is, by name; who is active; and leases of those in use."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from device_agent.engine.records import ModelService
from device_agent.http.services import Card, Encoder, ModelName
from device_agent.sensors import available_memory_bytes
from device_agent.shelf import names
from device_agent.shelf.keeper import Keeper, Place, Retired
from device_agent.shelf.records import Entry, Found, Opened, Opener, ShelfSettings, Standing, Tally
from device_agent.shelf.remembered import Remembered
from edgekit.errors import InvalidRequest, Overloaded, UnknownModel

log = logging.getLogger(__name__)


class ShelfLease:
    """Implements `Lease`."""

    def __init__(self, name: ModelName, card: Callable[[], Card], opened: Opened, release: Callable[[], None]) -> None:
        self.name = name
        self._card = card
        self._opened = opened
        self._release = release
        self._lock = threading.Lock()
        self._held = True

    @property
    def card(self) -> Card:
        """Facts of the base."""
        return self._card()

    @property
    def model(self) -> ModelService:
        """Who answers. Raises InvalidRequest if it is an encoder."""
        if self._opened.model is None:
            said = f"{self.name.base} turns texts into vectors and writes none: ask it at /v1/embeddings."
            raise InvalidRequest(said, param="model")
        return self._opened.model

    @property
    def encoder(self) -> Encoder:
        """Who makes vectors. Raises InvalidRequest if it generates."""
        if self._opened.encoder is None:
            raise InvalidRequest(f"{self.name.base} writes text and makes no vectors.", param="model")
        return self._opened.encoder

    def release(self) -> None:
        """Give it back; again is harmless. From any thread."""
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._release()


@dataclass(frozen=True, slots=True)
class _Table:
    """What is on the shelf at one time; never changed, but replaced, so that nobody who reads it needs a lock."""

    places: Mapping[str, Place]
    found: Found
    active: str | None


class Shelf:
    """Implements `Models`. `start` begins the thread that loads; `close` ends it, and every model.

    `found` is what a scan found, `open_bundle` loads one of its entries. `active` is who is active until somebody else
    is made so; `remembered` keeps who that was. `strategies` are names that a request may add to a model's.
    """

    def __init__(
        self,
        found: Found,
        open_bundle: Opener,
        settings: ShelfSettings | None = None,
        *,
        active: str | None = None,
        remembered: Remembered | None = None,
        strategies: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        available: Callable[[], int] = available_memory_bytes,
    ) -> None:
        self._keeper = Keeper(open_bundle, settings or ShelfSettings(), clock=clock, available=available)
        self._preferred = active
        self._remembered = remembered or Remembered(None)
        self._strategies = tuple(sorted(strategies))
        self._changing = threading.Lock()  # one who replaces the table at a time
        places = {entry.id: Place(entry) for entry in found.entries}
        self._table = _Table(places, found, self._choose_active(found))

    def start(self) -> None:
        """Start the thread; once."""
        self._keeper.start()

    # --- what there is ----------------------------------------------------------------------------

    def cards(self) -> list[Card]:
        """All of them, the active one first."""
        table = self._table
        order = sorted(table.places, key=lambda name: (name != table.active, name))
        return [self._card(table.places[name]) for name in order]

    def card(self, name: str) -> Card:
        """One of them, by its id or as a request names it. Raises UnknownModel."""
        return self._card(self._find(name)[0])

    def standing(self) -> Standing:
        """How the shelf is, for those who ask whether the agent is well."""
        table = self._table
        active = table.places.get(table.active or "")
        return Standing(
            active=table.active,
            loading=active is not None and active.opened is None and active.load is not None,
            failures={name: str(place.failure) for name, place in table.places.items() if place.failure is not None},
            faults=table.found.faults,
        )

    def problem(self, folder: str) -> str | None:
        """What is wrong with the bundle or the adapter in the folder of this name, None if nothing is known to be."""
        table = self._table
        for place in table.places.values():
            if place.entry.folder.name == folder and place.failure is not None:
                return str(place.failure)
        return next((fault.problem for fault in table.found.faults if fault.name == folder), None)

    def tallies(self) -> dict[str, Tally]:
        """What each model's engines have done so far, by id."""
        return self._keeper.tallies()

    # --- who uses it ------------------------------------------------------------------------------

    def lease(self, name: str) -> ShelfLease:
        """The model of a request, loaded if it is not.

        Raises UnknownModel, BundleError (or what else loading raised), ShuttingDown, and Overloaded if there is no room
        for it while others are in use, or if loading takes longer than requests wait.
        """
        return self._lease(name, self._keeper.settings.loading_wait_s)

    def preload(self) -> Card | None:
        """Have the active model loaded, however long that takes; None if there is no model. Raises as `lease` does."""
        name = self._table.active
        if name is None:
            return None
        lease = self._lease(name, None)
        lease.release()
        return lease.card

    def wake(self) -> None:
        """Begin to load the active model, unless it is loaded; nobody waits for it."""
        table = self._table
        if table.active is not None:
            self._keeper.wake(table.places[table.active])

    def activate(self, name: str) -> Card:
        """Make it the one that answers if nobody is named, also after a restart.

        Raises as `lease` does, InvalidRequest for what cannot be active, and StorageFailed if that cannot be kept.
        """
        place, asked = self._find(name)
        if asked.adapter is not None or asked.strategy is not None:
            raise InvalidRequest("Only a model itself can be active, without adapter and strategy.", param="id")
        if place.entry.manifest.embedding is not None:
            raise InvalidRequest(f"{place.entry.id} turns texts into vectors: it can answer nobody.", param="id")
        lease = self.lease(name)  # it is not to be the active one if it cannot be loaded
        try:
            with self._changing:
                self._remembered.write(lease.name.base)
                self._table = _Table(self._table.places, self._table.found, lease.name.base)
            return lease.card
        finally:
            lease.release()

    def unload(self, name: str) -> Card:
        """Take it out of memory once nobody uses it, and wait a moment for that. Raises UnknownModel."""
        place, _ = self._find(name)
        self._keeper.unload(place)
        return self._card(place)

    def spare(self) -> None:
        """Take out of memory what nobody uses at the moment, and wait a moment for that."""
        for place in self._table.places.values():
            if place.opened is not None and not place.held:
                self._keeper.unload(place)

    # --- change -----------------------------------------------------------------------------------

    def reload(self, found: Found, open_bundle: Opener, settings: ShelfSettings) -> None:
        """Take over what a new scan found. Bundles that are as they were stay loaded.

        Requests that run on one that is gone or was replaced end as they began; new ones get the new one.
        """
        self._keeper.adjust(settings, open_bundle)
        self._take_over(found, {})

    def replace(self, found: Found, open_bundle: Opener, settings: ShelfSettings) -> None:
        """As `reload`, but one that is loaded and is to be replaced serves until its successor is in memory.

        Raises what loading the successor raises; nothing has changed then. Where memory has no room for both while
        the one before answers, requests wait for the successor instead.
        """
        self._keeper.adjust(settings, open_bundle)
        ready: dict[str, Place] = {}
        try:
            for entry in found.entries:
                if self._is_to_be_replaced(entry):
                    self._load_ahead(entry, ready)
            self._take_over(found, ready)
        except BaseException:
            self._keeper.retire(ready.values())
            raise
        finally:
            for place in ready.values():
                self._keeper.give_back(place)

    def _is_to_be_replaced(self, entry: Entry) -> bool:
        place = self._table.places.get(entry.id)
        same = place is not None and (place.entry.folder, place.entry.sha256) == (entry.folder, entry.sha256)
        return place is not None and place.opened is not None and not same

    def _load_ahead(self, entry: Entry, ready: dict[str, Place]) -> None:
        place = Place(entry)
        try:
            self._keeper.hold(place, None)
        except Overloaded as problem:
            log.info("%s is not loaded ahead: %s", entry.id, problem)
        else:
            ready[entry.id] = place

    def _take_over(self, found: Found, ready: Mapping[str, Place]) -> None:
        with self._changing:
            before = {(place.entry.folder, place.entry.sha256): place for place in self._table.places.values()}
            places = {}
            for entry in found.entries:
                place = before.pop((entry.folder, entry.sha256), None) or ready.get(entry.id) or Place(entry)
                self._keeper.describe(place, entry)
                places[entry.id] = place
            self._table = _Table(places, found, self._choose_active(found))
        self._keeper.retire(before.values())

    def tidy(self) -> None:
        """Look again at what may be closed."""
        self._keeper.tidy()

    def close(self) -> None:
        """Lease nothing more, and close all models, whoever uses them. Waits, but not for a load that takes long."""
        self._keeper.close()

    # ----------------------------------------------------------------------------------------------

    def _lease(self, asked: str, wait_s: float | None) -> ShelfLease:
        while True:
            place, name = self._find(asked)
            try:
                opened = self._keeper.hold(place, wait_s)
            except Retired:  # the shelf was reloaded meanwhile
                continue
            return ShelfLease(name, partial(self._card, place), opened, partial(self._keeper.give_back, place))

    def _card(self, place: Place) -> Card:
        entry, opened = place.entry, place.opened
        return Card(
            id=entry.id,
            manifest=entry.manifest,
            sha256=entry.sha256,
            created=entry.created,
            active=entry.id == self._table.active and not place.retired,
            loaded=opened is not None,
            adapters=tuple(sorted(entry.adapters)),
            text=entry.text,
            state=opened.model.state() if opened is not None and opened.model is not None else None,
        )

    def _choose_active(self, found: Found) -> str | None:
        """Who was made active, else who is to be, else the first that generates; None if there is no model at all."""
        entries = [entry.id for entry in found.entries]
        able = [entry.id for entry in found.entries if entry.manifest.embedding is None]
        for asked in (self._remembered.read(), self._preferred, found.preferred):
            name = found.aliases.get(asked, asked) if asked else None
            if name in able:
                return name
            if name is not None:
                log.warning("%s is to be the active model, and is not on the shelf", name)
        return next(iter([*able, *entries]), None)

    def _find(self, asked: str) -> tuple[Place, ModelName]:
        """Who is meant. Raises UnknownModel, also for an adapter or a strategy that there is not."""
        table, name = self._table, names.parse(asked)
        base = self._base(table, name) if name is not None else None
        if name is None or base is None:
            known = sorted(table.places, key=lambda each: (each != table.active, each))
            raise UnknownModel(asked[:200], names.listed(known))
        entry = table.places[base].entry
        if name.adapter is not None and name.adapter not in entry.adapters:
            known = [base, *(f"{base}:{adapter}" for adapter in sorted(entry.adapters))]
            raise UnknownModel(asked[:200], names.listed(known))
        if name.strategy is not None and name.strategy not in self._strategies:
            known = [base, *(f"{base}@{strategy}" for strategy in self._strategies)]
            raise UnknownModel(asked[:200], names.listed(known))
        return table.places[base], ModelName(base=base, adapter=name.adapter, strategy=name.strategy)

    @staticmethod
    def _base(table: _Table, name: ModelName) -> str | None:
        base = table.found.aliases.get(name.base, name.base)
        if base in table.places:
            return base
        return table.active if base == names.DEFAULT else None
