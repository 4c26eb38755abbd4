"""A real model behind the real server, in this process: the queue, and clients that leave."""

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from device_agent import Model
from device_agent.app import AgentSettings, serve
from device_agent.engine.records import EngineSettings
from device_agent.http import HttpSettings, Server, create_app
from tests.device_agent.bundles import CONTEXT, NO_END, TINY, tokens_when_idle

WAIT_S = 60.0
"""Only ever waited for when something is broken."""
SETTINGS = HttpSettings(poll_s=0.02, threads=6, drain_s=0.5)
ENDLESS = {"temperature": 0, "logit_bias": {str(token): bias for token, bias in NO_END.items()}}


@dataclass
class Agent:
    """A running agent and its parts."""

    model: Model
    server: Server

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Model.open(TINY, threads=1, engine=EngineSettings(slots=1, queue_limit=1)) as model:
        server = Server(create_app(model, SETTINGS), host="127.0.0.1", port=0, settings=SETTINGS)
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield Agent(model, server)
        server.close()
        thread.join()


def ask(connection: http.client.HTTPConnection, **fields: Any) -> None:
    body = {"model": "tiny-llama", "messages": [{"role": "user", "content": "hello"}], **fields}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})


def read_until_text(response: http.client.HTTPResponse) -> None:
    for line in response:
        if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            return
    raise AssertionError("the stream has no text")


def test_text_is_streamed_and_is_what_the_model_says(agent: Agent) -> None:
    with closing(agent.connect()) as client:
        ask(client, stream=True, temperature=0, max_tokens=20)
        lines = [line[6:] for line in client.getresponse() if line.startswith(b"data: ")]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert lines[-1].strip() == b"[DONE]"
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == "".join(agent.model.chat([{"role": "user", "content": "hello"}], max_tokens=20))


def test_a_client_that_leaves_stops_its_answer(agent: Agent) -> None:
    with closing(agent.connect()) as client:
        ask(client, stream=True, **ENDLESS)
        response = client.getresponse()
        read_until_text(response)
        response.close()
    assert 0 < tokens_when_idle(agent.model) < CONTEXT // 2


def test_a_second_client_waits_its_turn_and_a_third_is_told_to_come_back(agent: Agent) -> None:
    with closing(agent.connect()) as first, closing(agent.connect()) as second, closing(agent.connect()) as third:
        ask(first, stream=True, **ENDLESS)
        running = first.getresponse()
        read_until_text(running)
        ask(second, max_tokens=1, temperature=0)
        while not agent.model.waiting:
            time.sleep(0)
        ask(third, max_tokens=1)
        refused = third.getresponse()
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        running.close()
        first.close()
        answer = json.load(second.getresponse())
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"messages": [{"role": "user", "content": "x " * CONTEXT}]}, "context_length_exceeded"),
        ({"model": "another"}, "model_not_found"),
    ],
)
def test_a_refused_request_leaves_the_agent_serving(agent: Agent, fields: dict[str, Any], code: str) -> None:
    with closing(agent.connect()) as client:
        ask(client, **fields)
        assert json.load(client.getresponse())["error"]["code"] == code
        ask(client, max_tokens=1)
        assert json.load(client.getresponse())["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serving_and_the_old_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    urls = []

    def ready(url: str, model: Model) -> None:
        urls.append(url)
        assert model.context_tokens == CONTEXT
        signal.raise_signal(number)

    serve(AgentSettings(TINY, port=0, engine=EngineSettings(threads=1)), ready)
    assert urls
    assert signal.getsignal(number) is before


def test_whatever_goes_wrong_when_it_is_ready_gives_the_port_back() -> None:
    ports = []

    def ready(url: str, _: Model) -> None:
        ports.append(int(url.rpartition(":")[2]))
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        serve(AgentSettings(TINY, port=0, engine=EngineSettings(threads=1)), ready)
    with socket.socket() as again:
        again.bind(("127.0.0.1", *ports))


@pytest.mark.parametrize("wanted", [True, False])
def test_huge_pages_are_asked_for_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch, *, wanted: bool) -> None:
    asked: list[str] = []
    monkeypatch.setattr("device_agent.pages.gather_beside", lambda: asked.append("once"))
    serve(
        AgentSettings(TINY, port=0, engine=EngineSettings(threads=1), huge_pages=wanted),
        lambda *_: signal.raise_signal(signal.SIGTERM),
    )
    assert asked == ["once"] * wanted
