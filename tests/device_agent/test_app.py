"""The whole agent in this process, with a real model: the queue, clients that leave, what a reload changes."""

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent import Model
from device_agent.access.keyfile import admin_token
from device_agent.app import serve
from device_agent.http.services import Card
from edgekit import contract
from edgekit.errors import CorruptBundle, NotABundle, UnknownModel, UsageError
from edgekit.settings import EngineOptions, ModelsSettings, ServerSettings, Settings
from tests.device_agent.agents import ENDLESS, WAIT_S, Running, ask, read_until_text, settings_for
from tests.device_agent.bundles import CONTEXT, ENCODER, TINY, copy_to, set_fields, tokens_when_idle

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts agents of settings, with what serves tests best for those that are not given."""
    running: list[Running] = []

    def run(path: Path, *, engine: EngineOptions | None = None, models: ModelsSettings | None = None) -> Running:
        settings = Settings(
            server=ServerSettings(port=0, drain_s=0.5),
            engine=engine or EngineOptions(threads=1),
            models=replace(models or ModelsSettings(), path=str(path)),
        )
        running.append(Running(settings, tmp_path / "home"))
        return running[-1]

    yield run
    for each in running:
        if not each.ended.done():
            each.stop()


@pytest.fixture
def agent(start: Start) -> Running:
    found = start(TINY, engine=EngineOptions(threads=1, slots=1, queue_limit=1))
    found.ready.result(WAIT_S)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with a model, an encoder, and what is none."""
    for name, source in (("one", TINY), ("two", ENCODER)):
        shutil.copytree(source, tmp_path / "store" / name)
    (tmp_path / "store" / "torn").mkdir()
    (tmp_path / "store" / "torn" / contract.MANIFEST_FILE).write_text("{")
    return tmp_path / "store"


def test_text_is_streamed_and_is_what_the_model_says(agent: Running) -> None:
    with closing(agent.connect()) as client:
        ask(client, stream=True, temperature=0, max_tokens=20)
        lines = [line[6:] for line in client.getresponse() if line.startswith(b"data: ")]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert lines[-1].strip() == b"[DONE]"
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == "".join(agent.model.chat([{"role": "user", "content": "hello"}], max_tokens=20))


def test_a_client_that_leaves_stops_its_answer(agent: Running) -> None:
    with closing(agent.connect()) as client:
        ask(client, stream=True, **ENDLESS)
        response = client.getresponse()
        read_until_text(response)
        response.close()
    assert 0 < tokens_when_idle(agent.model) < CONTEXT // 2


def test_a_second_client_waits_its_turn_and_a_third_is_told_to_come_back(agent: Running) -> None:
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
def test_a_refused_request_leaves_the_agent_serving(agent: Running, fields: dict[str, Any], code: str) -> None:
    with closing(agent.connect()) as client:
        ask(client, **fields)
        assert json.load(client.getresponse())["error"]["code"] == code
        ask(client, max_tokens=1)
        assert json.load(client.getresponse())["usage"]["completion_tokens"] == 1


# --- starting and stopping ------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serving_and_the_old_handlers_come_back(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    told = []

    def ready(url: str, card: Card | None) -> None:
        told.append((url, card))
        signal.raise_signal(number)

    serve(settings_for(TINY), tmp_path, ready)
    ((url, card),) = told
    assert url.startswith("http://127.0.0.1:")
    assert card is not None
    assert (card.id, card.loaded, card.manifest.context_tokens) == ("tiny-llama", True, CONTEXT)
    assert signal.getsignal(number) is before


def test_whatever_goes_wrong_when_it_is_ready_gives_the_port_back(tmp_path: Path) -> None:
    ports = []

    def ready(url: str, _: Card | None) -> None:
        ports.append(int(url.rpartition(":")[2]))
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        serve(settings_for(TINY), tmp_path, ready)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", *ports))


@pytest.mark.parametrize("wanted", [True, False])
def test_huge_pages_are_asked_for_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, wanted: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("device_agent.pages.gather_beside", lambda: asked.append("once"))
    settings = replace(settings_for(TINY), engine=EngineOptions(threads=1, huge_pages=wanted))
    serve(settings, tmp_path, lambda *_: signal.raise_signal(signal.SIGTERM))
    assert asked == ["once"] * wanted


def nobody(*_: object) -> None:
    raise AssertionError("it cannot be ready")


def test_one_bundle_that_is_broken_ends_the_agent(tmp_path: Path) -> None:
    with pytest.raises(NotABundle):
        serve(settings_for(tmp_path / "nowhere"), tmp_path, nobody)
    folder = copy_to(tmp_path)
    (folder / contract.TOKENIZER_FILE).write_bytes(b" " * (folder / contract.TOKENIZER_FILE).stat().st_size)
    with pytest.raises(CorruptBundle):  # it is found when the model is loaded, after the port was taken
        serve(settings_for(folder), tmp_path / "home", nobody)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_find_no_door_without_a_lock(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="without a key"):
        serve(settings_for(TINY, host=host), tmp_path, nobody)


# --- loading --------------------------------------------------------------------------------


def test_it_answers_about_itself_while_the_model_is_loaded_and_requests_wait(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, opened = threading.Event(), Model.open

    def slow(*given: Any, **options: Any) -> Model:
        may.wait(WAIT_S)
        return opened(*given, **options)

    monkeypatch.setattr(Model, "open", slow)
    agent = start(TINY)
    status, health = agent.get("/health")
    assert (status, health["status"]) == (503, "loading")
    assert agent.get("/health/live")[0] == 200
    status, listed = agent.get("/v1/models")
    assert (status, listed["data"][0]["id"], listed["data"][0]["meta"]["loaded"]) == (200, "tiny-llama", False)
    with closing(agent.connect()) as client:
        ask(client, max_tokens=1)
        assert not agent.ready.done()
        may.set()
        assert client.getresponse().status == 200
    agent.ready.result(WAIT_S)
    assert agent.get("/health") == (200, {"status": "ok", "reasons": []})


def test_a_lazy_agent_loads_nothing_before_it_is_asked(start: Start) -> None:
    agent = start(TINY, models=ModelsSettings(lazy=True))
    _, card = agent.ready.result(WAIT_S)
    assert card is not None
    assert not card.loaded
    assert agent.get("/health")[0] == 200
    with closing(agent.connect()) as client:
        ask(client, max_tokens=1)
        assert client.getresponse().status == 200
    assert agent.get("/v1/models")[1]["data"][0]["meta"]["loaded"]


def test_a_store_that_nobody_named_may_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = Running(Settings(server=ServerSettings(port=0)), tmp_path / "home")
    _, card = running.ready.result(WAIT_S)
    assert card is None
    status, health = running.get("/health")
    assert (status, health["reasons"]) == (503, ["there is no model"])
    assert caplog.messages[0] == f"there are no models: {tmp_path / 'home' / 'models'} does not exist"
    running.stop()


# --- a store --------------------------------------------------------------------------------


def test_a_store_serves_its_models_and_tells_of_broken_ones(start: Start, store: Path) -> None:
    agent = start(store)
    agent.ready.result(WAIT_S)
    status, health = agent.get("/health")
    assert (status, health["status"]) == (200, "degraded")
    assert health["reasons"] == ["the bundle in torn cannot be used"]
    assert [model["id"] for model in agent.get("/v1/models")[1]["data"]] == ["tiny-llama", "tiny-bert"]
    with closing(agent.connect()) as client:
        body = json.dumps({"model": "tiny-bert", "input": ["a", "b"]})
        client.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        assert len(json.load(client.getresponse())["data"]) == 2
    assert [model["loaded"] for model in agent.get("/v1/edgekit/models")[1]["data"]] == [True, True]


def test_only_the_admin_token_changes_what_is_active_and_it_is_kept(start: Start, store: Path) -> None:
    shutil.copytree(TINY, store / "three")
    set_fields(name="other")(store / "three")
    agent = start(store)
    agent.ready.result(WAIT_S)
    path = "/v1/edgekit/models/tiny-llama/activate"
    assert agent.agent.shelf.standing().active == "other"
    assert agent.post(path)[0] == 401
    status, entry = agent.post(path, key=admin_token(agent.home))
    assert (status, entry["active"]) == (200, True)
    agent.stop()
    again = start(store)
    _, card = again.ready.result(WAIT_S)
    assert card is not None
    assert card.id == "tiny-llama"


def test_a_reload_takes_over_new_bundles_and_leaves_running_answers_alone(start: Start, store: Path) -> None:
    agent = start(store)
    agent.ready.result(WAIT_S)
    with closing(agent.connect()) as client:
        ask(client, stream=True, **ENDLESS)
        running = client.getresponse()
        read_until_text(running)
        set_fields(version="2")(store / "one")
        shutil.rmtree(store / "torn")
        agent.agent.reload(lambda: replace(settings_for(store), usage=replace(Settings().usage, retention_days=7)))
        assert agent.agent.ledger.settings.retention_days == 7
        models = agent.get("/v1/models")[1]["data"]
        assert {model["id"]: model["meta"]["version"] for model in models} == {"tiny-llama": "2", "tiny-bert": "1"}
        with closing(agent.connect()) as other:
            ask(other, max_tokens=1, temperature=0)
            assert other.getresponse().status == 200
        read_until_text(running)  # on the old one, which goes on
        running.close()
    assert agent.get("/health") == (200, {"status": "ok", "reasons": []})
    assert agent.model.manifest.version == "2"


def test_settings_that_are_wrong_reload_nothing(start: Start, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    def wrong() -> Settings:
        raise UsageError("config.toml: port is no setting")

    agent = start(store)
    agent.ready.result(WAIT_S)
    shutil.rmtree(store / "two")
    agent.agent.reload(wrong)
    assert "nothing was reloaded: config.toml: port is no setting" in caplog.text
    assert len(agent.get("/v1/models")[1]["data"]) == 2
    agent.agent.reload(lambda: settings_for(store / "nowhere"))
    assert len(agent.get("/v1/models")[1]["data"]) == 2
    agent.agent.reload(lambda: settings_for(store))
    with pytest.raises(UnknownModel):
        agent.agent.shelf.card("tiny-bert")
