"""What a demo does with the product, as anybody could: run a verb, start an agent, ask it a question."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Asked without its second sentence, the checkpoint hesitates between "The" and "L" (its own float weights: 25.3 and
# 25.2), and any rounding decides; llama.cpp, reading the same file, goes on in French.
QUESTION = "What is the capital of France? Answer in one sentence."
PORT = 8080
MAX_TOKENS = 128
STOP_S = 15.0
ANSWER_S = 300.0
EDGEKIT = (sys.executable, "-m", "edgekit")


class DemoError(Exception):
    """One sentence for the person who ran the demo."""


@dataclass(frozen=True)
class Asked:
    """An answer and its speed in tokens a second."""

    answer: str
    decode_tokens_per_s: float
    prefill_tokens_per_s: float


def edgekit(*arguments: str) -> int:
    """Run a verb for its exit code; what it prints goes to standard error, its JSON nowhere."""
    return subprocess.call([*EDGEKIT, *arguments, "--json"], stdout=subprocess.DEVNULL)


# --- serve ----------------------------------------------------------------------------------


@contextlib.contextmanager
def agent(
    bundle: Path | None, port: int | None, *, variables: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `edgekit serve` and its address; stopped at the end of the block. None serves what a device has.

    What it has to tell goes to standard error, or into the file `log`. It gets a session of its own, so that Ctrl-C
    reaches this process alone and stopping happens once. Raises DemoError if it does not start.
    """
    served = () if bundle is None else (str(bundle),)
    command = [*EDGEKIT, "serve", *served, "--port", str(free_port() if port is None else port), "--json"]
    environment = {**os.environ, **(variables or {})}
    own_session = os.name == "posix"
    with (
        contextlib.nullcontext() if log is None else log.open("w", encoding="utf-8") as told,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=told, text=True, start_new_session=own_session, env=environment
        ) as process,
    ):
        try:
            yield process, _ready_url(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready_url(process: subprocess.Popen[str], log: Path | None) -> str:
    try:
        return ready_url(process.stdout or ())
    except DemoError as error:
        raise DemoError(f"{error}" if log is None else f"{error}; {log} tells why") from error


def free_port() -> int:
    """8080 if nobody has it, else 0: the agent then takes any free one."""
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def ready_url(lines: Iterable[str]) -> str:
    """The address in the JSON object that `edgekit serve --json` prints when it is ready, on one line or many."""
    text = ""
    for line in lines:
        text += line
        with contextlib.suppress(ValueError):
            return str(json.loads(text)["url"])
    raise DemoError("the agent did not start")


# --- ask ------------------------------------------------------------------------------------


def ask(url: str, question: str, screen: TextIO) -> Asked:
    """Stream one greedy answer to the screen. Raises DemoError if the agent refuses or goes away."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_S)
    try:
        with contextlib.closing(connection):
            model = json.loads(_request(connection, "GET", "/v1/models").read())["data"][0]["id"]
            return _stream_answer(connection, model, question, screen)
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"the agent does not answer: {error}") from error


def _stream_answer(connection: http.client.HTTPConnection, model: str, question: str, screen: TextIO) -> Asked:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": True,
    }
    answer, timings = "", {"predicted_per_second": 0.0, "prompt_per_second": 0.0}
    for event in events(_request(connection, "POST", "/v1/chat/completions", json.dumps(body))):
        if "error" in event:
            raise DemoError(f"the agent said: {event['error']['message']}")
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            answer += piece
            print(piece, end="", file=screen, flush=True)
        timings = event.get("timings") or timings
    return Asked(answer, timings["predicted_per_second"], timings["prompt_per_second"])


def _request(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
) -> http.client.HTTPResponse:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != http.HTTPStatus.OK:
        raise DemoError(f"the agent answered {response.status}: {response.read(1000).decode(errors='replace')}")
    return response


def events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to `[DONE]`. Comments (heartbeats) are skipped."""
    for line in lines:
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        if line.startswith(b"data:"):
            yield json.loads(data)
