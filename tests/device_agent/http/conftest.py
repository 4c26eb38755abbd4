"""The app with a fake model, in process and behind the real server."""

import threading
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from device_agent.http import HttpSettings, Server, create_app
from tests.fakes import FakeService, script, services

SETTINGS = HttpSettings(poll_s=0.02, heartbeat_s=60.0, threads=6, drain_s=0.5)
Start = Callable[[FakeService, HttpSettings], Server]


@pytest.fixture
def service() -> FakeService:
    return FakeService(replies=script("Pa", "ris", "."))


@pytest.fixture
def client(service: FakeService) -> FlaskClient:
    return create_app(services(service), SETTINGS).test_client()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts real servers on free ports; each is closed, and its thread ended, after the test."""
    running: list[tuple[Server, threading.Thread]] = []

    def run(service: FakeService, settings: HttpSettings) -> Server:
        server = Server(create_app(services(service), settings), host="127.0.0.1", port=0, settings=settings)
        thread = threading.Thread(target=server.serve)
        thread.start()
        running.append((server, thread))
        return server

    yield run
    for server, thread in running:
        server.close()
        thread.join()
