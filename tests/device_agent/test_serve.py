"""`edgekit serve` as a process of its own: it starts, answers, and ends as an operator expects."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.device_agent.bundles import CONTEXT, ENCODER, NO_END, TINY

WAIT_S = 60.0
"""Only ever waited for when something is broken."""
CHAT = {"model": "tiny-llama", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
JSON = {"Content-Type": "application/json"}
ENDLESS = {**CHAT, "stream": True, "logit_bias": {str(token): bias for token, bias in NO_END.items()}}


class Served:
    """A running agent."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "the agent ended before it was ready"
            text += line
        self.ready = json.loads(text)
        self.port = int(urlsplit(self.ready["url"]).port or 0)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    def end(self) -> tuple[int, str]:
        """Exit code, and what it said on standard error, once it ends."""
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgekit", "serve", str(TINY), "--threads", "1", *arguments]


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command("--json", *arguments), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


def post(client: http.client.HTTPConnection, body: object) -> http.client.HTTPResponse:
    client.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
    return client.getresponse()


def get(client: http.client.HTTPConnection, path: str) -> Any:
    client.request("GET", path)
    return json.load(client.getresponse())


def test_it_says_where_it_serves_and_serves_there() -> None:
    with serving("--port", "0") as agent:
        assert agent.ready == {"url": f"http://127.0.0.1:{agent.port}", "model": "tiny-llama", "context": CONTEXT}
        with closing(agent.connect()) as client:
            assert get(client, "/health") == {"status": "ok", "reasons": []}
            (card,) = get(client, "/v1/models")["data"]
            assert card["id"] == "tiny-llama"
            events = post(client, {**CHAT, "stream": True, "max_tokens": 5}).read().split(b"\n\n")
            assert events[-2:] == [b"data: [DONE]", b""]
        agent.process.terminate()
        assert agent.end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_while_it_streams_ends_it_cleanly_and_frees_the_port(number: signal.Signals) -> None:
    with serving("--port", "0") as agent, closing(agent.connect()) as client:
        response = post(client, {**ENDLESS, "max_tokens": 500})
        while b'"content"' not in response.readline():
            pass
        agent.process.send_signal(number)
        with suppress(http.client.HTTPException, ConnectionError):  # cut off if it takes too long to finish
            assert response.read().endswith(b"data: [DONE]\n\n")
        assert agent.end() == (0, "")
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", agent.port))


def test_a_taken_port_is_an_error_with_a_hint() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(command("--port", str(port)), capture_output=True, text=True, check=False)
    assert done.returncode == 53
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in error
    assert "--port 0" in hint


def test_people_are_told_the_addresses() -> None:
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # the agent must flush by itself
    with subprocess.Popen(command("--port", "0"), stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(4)]
        process.terminate()
        assert process.wait(WAIT_S) == 0
    assert said[0] == "ready  tiny-llama 1\n"
    assert "page" in said[1]
    assert said[2].rstrip().endswith("/v1")


def test_sighup_reads_settings_and_the_store_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(TINY, store / "one")
    config = tmp_path / "config.toml"
    config.write_text('[models]\npath = "nowhere"\n[engine]\nthreads = 1\n')
    pipe = subprocess.PIPE
    started = [sys.executable, "-m", "edgekit", "serve", str(store), "--config", str(config), "--port", "0", "--json"]
    with subprocess.Popen(started, stdout=pipe, stderr=pipe, text=True) as process:
        agent = Served(process)
        with closing(agent.connect()) as client:
            assert len(get(client, "/v1/models")["data"]) == 1
            shutil.copytree(ENCODER, store / "two")
            process.send_signal(signal.SIGHUP)
            while len(get(client, "/v1/models")["data"]) < 2:
                pass
            config.write_text("[server]\nprot = 1\n")
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            assert "Did you mean port?" in process.stderr.readline()
            assert get(client, "/health")["status"] == "ok"
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_each_request_is_a_line_of_json_if_that_is_wanted() -> None:
    with serving("--port", "0", "--log-format", "json", "--log-level", "info") as agent:
        with closing(agent.connect()) as client:
            client.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "max_tokens": 2}), JSON)
            answer = client.getresponse()
            answer.read()
        agent.process.terminate()
        code, said = agent.end()
    assert code == 0
    (line,) = (found for found in map(json.loads, said.splitlines()) if found.get("route") == "/v1/chat/completions")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["status"], line["model"], line["output_tokens"]) == (200, "tiny-llama", 2)
    assert "hello" not in said


def test_the_effective_settings_can_be_shown() -> None:
    done = subprocess.run(
        command("--print-config"),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "EDGEKIT_SERVER_PORT": "9"},
    )
    found = tomllib.loads(done.stdout)
    assert (found["server"]["port"], found["engine"]["threads"], found["models"]["path"]) == (9, 1, str(TINY))
