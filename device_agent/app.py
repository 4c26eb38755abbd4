"""THE AGENT: its rooms are built, started and stopped here, in order and in reverse.

    settings -> config -> releases (what updates brought) -> ledger of tokens -> gate (keys) -> shelf (models)
             -> upkeep (updates) -> watch (operations) -> http app -> server

The port is taken and /health and /v1/models answer before any model is loaded: that is done beside, and requests wait
for it. SIGTERM and Ctrl-C let running requests end; SIGHUP reads settings, prices, the certificate and the store again
while requests go on.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from device_agent.access.gate import Gate
from device_agent.access.settings import check_exposure
from device_agent.activation import Activation
from device_agent.activation.probe import ChildProbe
from device_agent.config import Config, config_of
from device_agent.http.app import create_app
from device_agent.http.server import Server
from device_agent.http.services import Card, Services
from device_agent.ledger.ledger import Ledger
from device_agent.operations import Watch
from device_agent.releases.scrub import Scrub
from device_agent.releases.store import Store
from device_agent.shelf import Found, Shelf
from device_agent.shelf.remembered import ACTIVE_FILE, Remembered
from device_agent.shelf.scan import scan
from device_agent.shelf.synced import Leasing, ShelfSwitch, bases, with_synced
from device_agent.sync.identity import read_identity
from device_agent.sync.records import LinkSettings
from device_agent.sync.upkeep import Upkeep
from edgekit.errors import CorruptBundle, EdgekitError, NotEnrolled, ShuttingDown
from edgekit.settings import Settings

if TYPE_CHECKING:
    from device_agent.sync.rooms import Rooms

log = logging.getLogger(__name__)

Ready = Callable[[str, Card | None], None]
"""Is told the address, and the model that answers, once it does."""


def serve(settings: Settings, home: Path, ready: Ready, *, reread: Callable[[], Settings] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C. `home` is the agent's folder; `reread` reads the settings anew, for SIGHUP.

    Runs on the main thread, where signals arrive; `ready` is called on another one. Raises BundleError subclasses (if
    one bundle is served and cannot be), AddressInUse, StorageFailed or UsageError.
    """
    agent = Agent(settings, home)
    handlers: Mapping[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: agent.stop,
        signal.SIGINT: agent.stop,
        **({signal.SIGHUP: lambda: agent.reload_beside(reread)} if hasattr(signal, "SIGHUP") and reread else {}),
    }
    with _signals(handlers):
        agent.run(ready)


class Agent:
    """All rooms, not yet started. Raises as `serve` does."""

    def __init__(self, settings: Settings, home: Path) -> None:
        config = config_of(settings, home)
        check_exposure(settings.server.host, config.access)
        self._settings = settings
        self._config = config
        self._home = home
        self.releases = Store(home)
        self._switch = ShelfSwitch()
        probe = ChildProbe(bases(self.releases, config.store), make_room=self._switch.spare)
        self.activation = Activation(self.releases, probe=probe, switch=self._switch, clock=time.time)
        self._resume()
        found = self._found(config, settings)
        self._problem: BaseException | None = None
        self._reloading = threading.Lock()
        self._alone = found.alone
        self.ledger = Ledger.open(home, config.ledger)
        self.gate = Gate.open(home, config.access, self.ledger)
        self.shelf = Shelf(
            found,
            Leasing(self.releases, config.opening),
            config.shelf,
            active=settings.models.active,
            remembered=Remembered(None if found.alone else home / ACTIVE_FILE),
            strategies=config.strategies.names,
        )
        self._switch.attach(self.shelf, self._take_over_releases)
        self.upkeep = Upkeep(
            home, config.link, self._linked, pulse=self.activation.soaked, clock=time.time, ticks=time.monotonic
        )
        self.scrub = Scrub(self.releases, self.upkeep.mend)
        self.watch = Watch(self.shelf, home, ledger=self.ledger, updates=self.upkeep.readings)
        self.services = Services(
            models=self.shelf,
            gate=self.gate,
            books=(self.ledger, self.watch),
            keys=self.gate.keys,
            usage=self.ledger,
            operations=self.watch,
            sync=self.upkeep,
            strategies=config.strategies,
        )
        app = create_app(self.services, config.http)
        self.server = Server(app, host=settings.server.host, port=settings.server.port, settings=config.http)

    def run(self, ready: Ready) -> None:
        """Start the rooms in order, serve until `stop`, and stop them in reverse. Raises what went wrong meanwhile."""
        with ExitStack() as rooms:
            rooms.callback(self.server.close)
            self.ledger.start()
            rooms.callback(self.ledger.close)
            self.shelf.start()
            rooms.callback(self.shelf.close)
            rooms.callback(self._rest)
            self.scrub.start()
            rooms.callback(self.scrub.close)
            self.upkeep.start()
            rooms.callback(self.upkeep.close)
            if not self._settings.models.lazy:
                self.shelf.wake()
            threading.Thread(target=self._greet, args=(ready,), name="edgekit-greet", daemon=True).start()
            log.info("listening on %s", self.server.url)
            self.server.serve()
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        """Take no more requests, and let running ones end. From any thread or signal handler, repeatedly."""
        self.watch.stop()
        self.server.close()

    def _greet(self, ready: Ready) -> None:
        """Wait for the active model, and say that the agent is ready. One that can serve nothing at all ends."""
        try:
            card = self._first_model()
            ready(self.server.url, card)
        except ShuttingDown:  # somebody was faster
            return
        except BaseException as problem:  # noqa: BLE001 - whatever it is, `run` raises it
            self._problem = problem
            self.stop()

    def _first_model(self) -> Card | None:
        if self._settings.models.lazy:
            return next(iter(self.shelf.cards()), None)
        try:
            return self._preloaded()
        except EdgekitError:
            if self._alone:
                raise
            return next(iter(self.shelf.cards()), None)  # others may be whole; the log and /health tell

    def _preloaded(self) -> Card | None:
        """A release that is damaged gives way to the one before it, until it is repaired. Raises as loading does."""
        try:
            return self.shelf.preload()
        except CorruptBundle:
            if not self.releases.doubts:
                raise
            self.activation.soaked()
            return self.shelf.preload()

    # --- SIGHUP -----------------------------------------------------------------------------------

    def reload_beside(self, reread: Callable[[], Settings]) -> None:
        """Reload on a thread of its own: a signal handler must not wait."""
        threading.Thread(target=self.reload, args=(reread,), name="edgekit-reload", daemon=True).start()

    def reload(self, reread: Callable[[], Settings]) -> None:
        """Read everything again. What is wrong is logged, and the agent goes on as it was."""
        with self._reloading:
            try:
                settings = reread()
                config = config_of(settings, self._home)
                found = self._found(config, settings)
                self.server.renew_certificate()
            except EdgekitError as problem:
                log.error("nothing was reloaded: %s", problem)  # noqa: TRY400 - the sentence is for people
                return
            self._take_over(settings, config, found)

    def _take_over(self, settings: Settings, config: Config, found: Found) -> None:
        if settings.server != self._settings.server:
            log.warning("settings in [server] count after a restart only")
        self.ledger.settings = config.ledger
        self.upkeep.adjust(config.link)
        self.shelf.reload(found, Leasing(self.releases, config.opening), config.shelf)
        self._settings, self._config = settings, config
        if not settings.models.lazy:
            self.shelf.wake()
        log.info("reloaded: %d models", len(found.entries))

    # --- releases ---------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Serving what is on trial counts as a start of it, and is written down before. A full disk stops nobody."""
        try:
            self.activation.resume()
        except EdgekitError as problem:
            log.error("%s", problem)  # noqa: TRY400 - the sentence is for people

    def _found(self, config: Config, settings: Settings) -> Found:
        """What is in the store, and what the sync link brought. Raises BundleError."""
        found = found_at(config.store, named=settings.models.path is not None)
        try:
            both = with_synced(found, self.releases)
        except EdgekitError as problem:
            log.error("nothing that was synced is served: %s", problem)  # noqa: TRY400 - the sentence is for people
            both = found
        if both is found and not config.store.exists():  # one that was named would have been an error
            log.warning("there are no models: %s does not exist", config.store)
        return both

    def _take_over_releases(self) -> None:
        """The record of releases is another one: the shelf follows. Raises what loading raises."""
        with self._reloading:
            config = self._config
            found = found_at(config.store, named=self._settings.models.path is not None)
            found = with_synced(found, self.releases)
            self.shelf.replace(found, Leasing(self.releases, config.opening), config.shelf)
        if not self._settings.models.lazy:
            self.shelf.wake()

    def _linked(self, settings: LinkSettings) -> "Rooms":
        """The sync link of a device that is enrolled; others need not even load it. Raises as `compose` does."""
        if read_identity(self._home) is None:
            raise NotEnrolled("it was never told whom to trust")
        from device_agent.sync.composing import compose

        return compose(self._home, settings, store=self.releases, activation=self.activation, clock=time.time)

    def _rest(self) -> None:
        try:
            self.activation.close()
        except EdgekitError as problem:
            log.error("%s", problem)  # noqa: TRY400 - the sentence is for people


def found_at(store: Path, *, named: bool) -> Found:
    """What is in the store. One that nobody `named` need not be there yet. Raises BundleError."""
    if not named and not store.is_dir():
        return Found(entries=())
    return scan(store)


@contextmanager
def _signals(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Signals call these inside of the block. Main thread only: elsewhere Python allows no handlers."""

    def handle(number: int, _: FrameType | None) -> None:
        log.info("%s", signal.Signals(number).name)
        handlers[signal.Signals(number)]()

    before = {number: signal.signal(number, handle) for number in handlers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
