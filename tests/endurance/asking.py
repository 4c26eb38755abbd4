"""Asking an agent over HTTP: whole streamed answers, and what came of those that were cut off."""

import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT_S = 120.0
MAX_TOKENS = 16
MODEL = "default"


@dataclass(frozen=True)
class Answer:
    """What was streamed: the releases that its pieces name, in order. `whole` is whether it came to its end."""

    text: str
    fingerprints: tuple[str, ...]
    whole: bool


class NotServed(Exception):
    """The agent said no."""


def ask(port: int, model: str, prompt: str) -> Answer:
    """A greedy answer, also one that was cut off. Raises NotServed, or OSError if the agent cannot be reached."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": True,
    }
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as client:
        client.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = client.getresponse()
        if response.status != http.client.OK:
            raise NotServed(f"{response.status} {response.read(500)!r}")
        return _read(response)


def _read(response: http.client.HTTPResponse) -> Answer:
    text, fingerprints, whole = "", dict[str, None](), False
    try:
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                whole = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise NotServed(f"{event['error']}")
            fingerprints[event["system_fingerprint"]] = None
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
    except (OSError, http.client.HTTPException, ValueError):
        whole = False  # ValueError: half a line
    return Answer(text, tuple(fingerprints), whole)


def catalogue(port: int) -> list[tuple[str, str]]:
    """Ids and versions of the models that are served."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as client:
        client.request("GET", "/v1/models")
        return [(card["id"], card["meta"]["version"]) for card in json.load(client.getresponse())["data"]]


def sync(port: int, home: Path, verb: str = "", **fields: str) -> tuple[int, dict[str, Any]]:
    """What the agent says of its updates, once it was told to do something; and the status."""
    token = (home / "admin-token").read_text(encoding="utf-8").strip()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as client:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        path = f"/v1/edgekit/sync/{verb}" if verb else "/v1/edgekit/sync"
        client.request("POST" if verb else "GET", path, json.dumps(fields) if verb else None, headers)
        answer = client.getresponse()
        return answer.status, json.load(answer)
