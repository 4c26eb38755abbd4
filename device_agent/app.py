"""THE AGENT: everything is built, started and stopped here, in order and in reverse."""

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from device_agent.http.app import create_app
from device_agent.http.server import Server
from device_agent.http.settings import HttpSettings
from device_agent.model import Model
from edgekit.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentSettings:
    """What to serve, and where."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    threads: int | None = None
    queue_limit: int = 16


def serve(settings: AgentSettings, ready: Callable[[str, Model], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` is told the address once requests are answered.

    Raises BundleError subclasses, AddressInUse or UsageError before anything is served.
    """
    if settings.threads is not None and settings.threads < 1:
        raise UsageError(f"--threads {settings.threads}: at least one is needed")
    http = HttpSettings.listening_on(settings.host)
    with Model.open(settings.folder, threads=settings.threads, queue_limit=settings.queue_limit) as model:
        server = Server(create_app(model, http), host=settings.host, port=settings.port, settings=http)

        def stop(number: int, _: FrameType | None) -> None:
            log.info("signal %s: stopping", signal.Signals(number).name)
            server.close()

        before = _handle((signal.SIGTERM, signal.SIGINT), stop)
        try:
            ready(server.url, model)
            server.serve()
        finally:
            server.close()
            for number, handler in before.items():
                signal.signal(number, handler)


def _handle(numbers: tuple[signal.Signals, ...], stop: Callable[[int, FrameType | None], None]) -> dict[int, object]:
    """Install `stop` where Python allows it (the main thread); returns the handlers that were there before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, stop) for number in numbers}
