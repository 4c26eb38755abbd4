"""An agent that serves the real page and answers its requests from tables that a test fills."""

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

from device_agent.http.routes import page
from tests.end_to_end.fake_updates import sync

Json = dict[str, Any]
CARD = """# tiny-instruct 1.2

| | |
| --- | --- |
| architecture | llama: 30 layers of width 576 |
| licence | apache-2.0 |

## Measured at export

Over 137 tokens of text, against the source's own weights in float:

| | |
| --- | --- |
| KL divergence | 0.0037 nats |
| same most likely token | 95.6% |
"""
POLL_S = 0.02


def engine(**changed: Any) -> Json:
    """An EngineState as JSON."""
    state = {"running": 1, "waiting": 0, "slots": 4, "loaded": True, "resting": False, "threads": 2}
    cache = {"cached_entries": 12, "cached_bytes": 48_000_000, "read_tokens": 9_000, "cached_tokens": 4_000}
    return state | cache | {"written_tokens": 5_000, "drafted": 400, "accepted": 300} | changed


def model(name: str = "tiny-instruct", **changed: Any) -> Json:
    """An entry of /v1/edgekit/models."""
    arch = {"model_type": "llama", "layers": 30, "hidden": 576, "heads": 9, "kv_heads": 3, "vocab": 49_152}
    entry = {
        "id": name,
        "kind": "generate",
        "active": True,
        "loaded": True,
        "version": "1.2",
        "created": 1_790_000_000,
        "sha256": "5f" * 32,
        "architecture": arch | {"parameters": 134_500_000},
        "quantisation": "int4",
        "licence": "apache-2.0",
        "source": "gguf tiny-instruct.gguf",
        "bytes": 105_700_000,
        "memory_bytes": 198_000_000,
        "context": 8_192,
        "quality": {"kl": 0.0037, "same_top_token": 0.956, "perplexity": 21.4, "reference_perplexity": 20.9},
        "adapters": ["french"],
        "files": [{"path": "bundle.json", "size": 9_989}, {"path": "model.onnx.data", "size": 103_690_368}],
        "card": CARD,
        "measured": {"prompt_tokens_per_s": 622.0, "decode_tokens_per_s": 138.6},
        "engine": engine(),
    }
    return entry | changed


def device(**changed: Any) -> Json:
    """What /v1/edgekit/device answers."""
    return {
        "versions": {"edgekit": "0.4.0", "onnxruntime": "1.31.1", "python": "3.11.9"},
        "uptime_s": 93_784,
        "machine": {
            "processor": "ARM Cortex-A76",
            "cores": 4,
            "threads": 4,
            "system": "Linux",
            "architecture": "aarch64",
        },
        "memory": {"total_bytes": 8_200_000_000, "available_bytes": 5_100_000_000, "rss_bytes": 812_000_000},
        "disk": {"free_bytes": 19_300_000_000, "total_bytes": 62_000_000_000},
        "temperature_c": 61.4,
        "throttled": False,
        "battery": {"percent": 78, "plugged": False},
        "rates": {"prompt_tokens_per_s": 96.0, "decode_tokens_per_s": 12.4},
        "running": 1,
        "waiting": 2,
        "models": [{"id": "tiny-instruct", "engine": engine()}],
        "clock": {"now": 1_795_413_600},
    } | changed


class Stream:
    """The body of one streamed answer: what a test pushes, until it ends it; `cancelled` if the page hangs up first."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._pushed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def raw(self, data: bytes) -> None:
        """Bytes as they are, in a packet of their own."""
        self._pushed.put(data)

    def delta(self, **delta: Any) -> None:
        """A chunk of the answer."""
        self.raw(event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))

    def end(self, finish: str = "stop", **usage: Any) -> None:
        """The last chunks, and the end."""
        self.raw(closing(finish, **usage))
        self._pushed.put(None)

    def cut(self) -> None:
        """Ends without saying so."""
        self._pushed.put(None)

    def __iter__(self) -> Iterator[bytes]:
        ended = False
        try:
            while not ended:
                try:
                    item = self._pushed.get(timeout=POLL_S)
                except queue.Empty:
                    item = b": ping\n\n"  # writing is how it is noticed that nobody reads
                ended = item is None
                if item is not None:
                    yield item
        finally:
            if not ended:
                self.cancelled.set()


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def closing(finish: str = "stop", *, prompt: int = 20, cached: int = 8, written: int = 3) -> bytes:
    """How an answer ends, with its numbers."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    timings = {"timings": {"predicted_per_second": 20.4}}
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]} | timings)
    return last + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def says(*texts: str) -> list[bytes]:
    """A whole answer."""
    chunks = [event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}) for text in texts]
    return [*chunks, closing()]


@dataclass
class FakeAgent:
    """State that tests set, and what they look at afterwards.

    `replies` answer every chat at once; without them the test takes a Stream from `streams`. `key` is asked for if it
    is set; `missing` are routes that this agent does not have; `refusals` are answers (status, object) by route;
    `wishes` what was asked of updates.
    """

    models: list[Json] = field(default_factory=lambda: [model()])
    readings: Json = field(default_factory=device)
    rows: list[Json] = field(default_factory=list)
    updates: Json = field(default_factory=sync)
    wishes: list[tuple[str, Json]] = field(default_factory=list)
    currency: str | None = None
    replies: list[bytes] = field(default_factory=list)
    key: str | None = None
    admin: str = "admin-secret"
    missing: set[str] = field(default_factory=set)
    refusals: dict[str, tuple[int, Json]] = field(default_factory=dict)
    chats: list[Json] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    streams: queue.SimpleQueue[Stream] = field(default_factory=queue.SimpleQueue)

    def app(self) -> Flask:
        """The page and the routes that it asks."""
        app = Flask(__name__, static_folder=None)
        app.register_blueprint(page.routes())
        app.after_request(page.harden)
        app.before_request(self._checked)
        app.get("/v1/models")(self._list)
        app.get("/v1/edgekit/models")(self._catalogue)
        app.post("/v1/edgekit/models/<name>/<verb>")(self._change)
        app.get("/v1/edgekit/device")(self._device)
        app.get("/v1/edgekit/sync")(self._sync)
        app.post("/v1/edgekit/sync/<verb>")(self._wish)
        app.get("/v1/usage")(self._usage)
        app.get("/v1/usage.csv")(self._csv)
        app.post("/v1/chat/completions")(self._chat)
        return app

    def _checked(self) -> Any:
        path = request.path
        if not path.startswith("/v1/"):
            return None
        self.asked.append(f"{request.method} {request.full_path.rstrip('?')}")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if path in self.missing:
            return refusal("There is no such route."), 404
        if path in self.refusals:
            status, body = self.refusals[path]
            return body, status
        if path.startswith("/v1/edgekit/") and (request.method == "POST" or "/sync" in path):
            return None if given == self.admin else (refusal("This needs the scope 'admin'."), 403)
        if self.key is not None and given != self.key:
            return refusal("This agent needs a key." if not given else "This key is not known."), 401
        return None

    def _list(self) -> Json:
        entries = []
        for one in self.models:
            entries += [_entry(one, one["id"]), *(_entry(one, f"{one['id']}:{name}") for name in one["adapters"])]
        return {"object": "list", "data": entries}

    def _catalogue(self) -> Json:
        return {"data": self.models}

    def _device(self) -> Json:
        return self.readings

    def _sync(self) -> Json:
        return self.updates

    def _wish(self, verb: str) -> Json:
        self.wishes.append((verb, request.get_json()))
        return self.updates

    def _usage(self) -> Json:
        return {"object": "list", "currency": self.currency, "texts_kept": False, "data": self.rows}

    def _csv(self) -> Response:
        return Response("day,model\n2026-11-23,tiny\n", content_type="text/csv")

    def _change(self, name: str, verb: str) -> Any:
        found = [one for one in self.models if one["id"] == name]
        if not found:
            return refusal("There is no such model."), 404
        if verb == "activate":
            for one in self.models:
                one["active"] = one is found[0]
        found[0]["loaded"] = verb == "activate"
        return found[0]

    def _chat(self) -> Response:
        self.chats.append(request.get_json())
        stream = Stream()
        for chunk in self.replies:
            stream.raw(chunk)
        if self.replies:
            stream.cut()
        else:
            self.streams.put(stream)
        return Response(iter(stream), content_type="text/event-stream")


def _entry(one: Json, name: str) -> Json:
    same = ("kind", "active", "loaded", "version", "quantisation", "licence", "quality", "sha256")
    meta = {key: one[key] for key in same} | {"n_ctx": one["context"], "size": one["bytes"]}
    if name != one["id"]:
        meta["base"] = one["id"]
    return {"id": name, "object": "model", "created": one["created"], "owned_by": "edgekit", "meta": meta}


def refusal(message: str, code: str | None = None) -> Json:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # werkzeug's name
        """Requests are what tests look at; nobody reads a log of them."""


class Serving:
    """`agent` on a free port of loopback, until it is closed. One connection per request, each with its thread."""

    def __init__(self, agent: FakeAgent) -> None:
        self._server = make_server("127.0.0.1", 0, agent.app(), threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": POLL_S})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Ends."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
