"""THE AGENT: everything is built, started and stopped here, in order and in reverse."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from device_agent import pages
from device_agent.engine.records import EngineSettings
from device_agent.http.app import create_app
from device_agent.http.server import Server
from device_agent.http.settings import HttpSettings
from device_agent.model import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentSettings:
    """What to serve, and where.

    `state` is the agent's own folder, see `Model.open`. `system` is a system prompt to read ahead. `huge_pages` lets it
    move the weights into larger pages once it is ready.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    engine: EngineSettings = field(default_factory=EngineSettings)
    state: Path | None = None
    system: str | None = None
    huge_pages: bool = False


def serve(settings: AgentSettings, ready: Callable[[str, Model], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` is told the address once requests are answered.

    Runs on the main thread, where signals arrive. Raises BundleError subclasses, AddressInUse or UsageError before
    anything is served.
    """
    http = HttpSettings.listening_on(settings.host)
    with Model.open(settings.folder, engine=settings.engine, state=settings.state) as model:
        if settings.system is not None:
            model.read_ahead(settings.system)
        server = Server(create_app(model, http), host=settings.host, port=settings.port, settings=http)

        with _signals(server.close):
            try:
                ready(server.url, model)
                if settings.huge_pages:
                    pages.gather_beside()
                server.serve()
            finally:
                server.close()


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C call `stop` inside of the block. Main thread only: elsewhere Python allows no handlers."""

    def handle(number: int, _: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
