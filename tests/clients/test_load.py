"""32 clients at once for a minute, half of them leaving midway: nothing is lost or mixed, and memory stays flat."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.clients.agent import Agent

CLIENTS = 32
LASTS_S = 60
DIGITS = 24
MOST_GROWTH = 1.15


@dataclass
class Seen:
    """What the clients saw, counted; `wrong` are answers that were not their own or not whole."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def test_no_stream_is_lost_or_mixed_and_memory_is_flat(agent: Agent) -> None:
    seen = Seen()
    ends = time.monotonic() + LASTS_S
    middle: list[int] = []
    clients = [threading.Thread(target=_client, args=(agent, number, ends, seen)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    while time.monotonic() < ends - LASTS_S / 2:
        time.sleep(0.5)
    middle.append(_rss(agent))
    for client in clients:
        client.join()
    assert not seen.wrong, seen.wrong[:5]
    assert seen.counts["whole"] > CLIENTS / 2
    assert seen.counts["left"] > CLIENTS / 2
    assert _rss(agent) < MOST_GROWTH * middle[0]
    assert json.loads(agent.get("/health"))["status"] == "ok"


def _client(agent: Agent, number: int, ends: float, seen: Seen) -> None:
    """Ask again and again for an answer that can only be this client's, because a grammar says who it is."""
    draw = random.Random(number)
    turn = 0
    while time.monotonic() < ends:
        turn += 1
        name = f"client {number} turn {turn}: "
        leaves = number % 2 == 1
        try:
            outcome = _ask(agent, name, draw.randrange(1, DIGITS) if leaves else None, seen)
        except OSError as error:
            seen.wrong.append(f"{name}{error!r}")
            return
        seen.counts[outcome] += 1


def _ask(agent: Agent, name: str, leave_after: int | None, seen: Seen) -> str:
    place = urlsplit(agent.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=300)
    body = {
        "model": agent.model,
        "messages": [{"role": "user", "content": f"You are {name}. Write digits."}],
        "grammar": {"type": "regex", "value": f"{name}[0-9]{{{DIGITS}}}"},
        "stream": True,
    }
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status == 503:  # the queue is full, and says when to come back
            time.sleep(min(1.0, float(answer.headers["Retry-After"])))
            return "busy"
        if answer.status != 200:
            seen.wrong.append(f"{name}{answer.status} {answer.read()[:200]!r}")
            return "wrong"
        return _read(answer, name, leave_after, seen)
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, name: str, leave_after: int | None, seen: Seen) -> str:
    text, finish, pieces = "", None, 0
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        (choice,) = json.loads(line[6:])["choices"]
        text += choice["delta"].get("content") or ""
        finish = choice["finish_reason"] or finish
        pieces += 1
        if leave_after is not None and pieces > leave_after:
            if not name.startswith(text[: len(name)]):
                seen.wrong.append(f"{name}left with {text!r}")
            return "left"
    if finish != "stop" or not text.startswith(name) or not text[len(name) :].isdigit():
        seen.wrong.append(f"{name}{finish} {text!r}")
    return "whole"


def _rss(agent: Agent) -> int:
    found: int = json.loads(agent.get("/v1/edgekit/device"))["memory"]["rss_bytes"]
    return found
