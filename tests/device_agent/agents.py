"""A whole agent in this process, and what clients do to it."""

import http.client
import json
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

from device_agent import Model
from device_agent.app import Agent
from device_agent.http.services import Card
from edgekit.settings import EngineOptions, ModelsSettings, ServerSettings, Settings
from tests.device_agent.bundles import NO_END
from tests.device_agent.shelf.shelves import beside

WAIT_S = 60.0
"""Only ever waited for when something is broken."""
ENDLESS = {"temperature": 0, "logit_bias": {str(token): bias for token, bias in NO_END.items()}}


class Running:
    """An agent that serves on a thread of its own, and the model that it was told is ready."""

    def __init__(self, settings: Settings, home: Path) -> None:
        self.agent = Agent(settings, home)
        self.home = home
        self.ready: Future[tuple[str, Card | None]] = Future()
        self.ended = beside(lambda: self.agent.run(lambda url, card: self.ready.set_result((url, card))))

    @property
    def model(self) -> Model:
        lease = self.agent.shelf.lease("default")
        lease.release()
        assert isinstance(lease.model, Model)
        return lease.model

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.agent.server.port, timeout=WAIT_S)

    def get(self, path: str) -> tuple[int, Any]:
        with closing(self.connect()) as client:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, json.load(answer)

    def post(self, path: str, *, key: str | None = None) -> tuple[int, Any]:
        with closing(self.connect()) as client:
            client.request("POST", path, headers={} if key is None else {"Authorization": f"Bearer {key}"})
            answer = client.getresponse()
            return answer.status, json.load(answer)

    def stop(self) -> None:
        self.agent.stop()
        self.ended.result(WAIT_S)


def ask(connection: http.client.HTTPConnection, **fields: Any) -> None:
    body = {"model": "tiny-llama", "messages": [{"role": "user", "content": "hello"}], **fields}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})


def read_until_text(response: http.client.HTTPResponse) -> None:
    for line in response:
        if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            return
    raise AssertionError("the stream has no text")


def settings_for(path: Path, *, host: str = "127.0.0.1") -> Settings:
    return Settings(
        server=ServerSettings(host=host, port=0),
        engine=EngineOptions(threads=1),
        models=ModelsSettings(path=str(path)),
    )
