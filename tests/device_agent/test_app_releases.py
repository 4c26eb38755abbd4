"""The whole agent and what the sync link brought: it serves that, and moves to another release while clients stream."""

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.activation import Activation, Unserved, Verdict
from device_agent.releases.records import Line, Ref
from device_agent.releases.store import Store
from edgekit import contract
from edgekit.errors import FailedTrial
from edgekit.release.manifest import HealthFloor
from edgekit.settings import EngineOptions
from tests.device_agent.activation.faked import silent
from tests.device_agent.agents import ENDLESS, WAIT_S, Running, ask, read_until_text, settings_for
from tests.device_agent.bundles import ADAPTABLE, TINY, WARM, edit, set_fields
from tests.imports import ROOT
from tests.releases import CHANNEL, NO_SOAK, install_folder, rot

SOAK = HealthFloor(soak_s=3_600.0)


class Home:
    """A device's folder: its models, and its releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.models.mkdir(parents=True)
        self.store = Store(folder)

    def brings(
        self,
        version: str,
        *,
        source: Path = TINY,
        health: HealthFloor = NO_SOAK,
        change: Callable[[Path], None] = lambda _: None,
    ) -> Ref:
        """A release of a bundle with this version, whole on the disk."""
        made = Path(shutil.copytree(source, self.folder / "made"))
        set_fields(version=version)(made)
        change(made)
        ref = install_folder(self.store, made, sequence=int(version), health=health)
        shutil.rmtree(made)
        return ref

    def updates(self, ref: Ref, channel: str = CHANNEL) -> None:
        """As another process does it, which serves nobody: the trial is not the matter here."""
        Activation(
            Store(self.folder), probe=lambda *_: Verdict(ok=True), switch=Unserved(), clock=time.time
        ).try_release(channel, ref, tell=silent)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def start(home: Home) -> Iterator[Callable[..., Running]]:
    """Starts the agent of the home; each is stopped after the test."""
    with ExitStack() as running:

        def run(duty: float = 1.0) -> Running:
            settings = replace(settings_for(home.models), engine=EngineOptions(threads=1, slots=8, duty=duty))
            agent = Running(settings, home.folder)
            running.callback(lambda: None if agent.ended.done() else agent.stop())
            agent.ready.result(WAIT_S)
            return agent

        yield run


def version(agent: Running) -> str:
    found = agent.get("/v1/models")[1]["data"]
    return str(next(model["meta"]["version"] for model in found if model["id"] == "tiny-llama"))


def until(what: Callable[[], bool]) -> None:
    """The agent looks at the record every second: wait for that."""
    while not what():
        time.sleep(0)


def answer(agent: Running, **fields: object) -> int:
    with closing(agent.connect()) as client:
        ask(client, max_tokens=1, temperature=0, **fields)
        return client.getresponse().status


def test_what_was_synced_is_served_without_any_bundle_in_the_store(home: Home, start: Callable[..., Running]) -> None:
    home.updates(home.brings("2"))
    agent = start()
    assert (version(agent), answer(agent)) == ("2", 200)
    assert agent.agent.shelf.standing().active == "tiny-llama"


def test_a_release_goes_before_a_bundle_of_its_name(home: Home, start: Callable[..., Running]) -> None:
    shutil.copytree(TINY, home.models / "tiny")
    home.updates(home.brings("2"))
    agent = start()
    models = {model["id"]: model["meta"]["version"] for model in agent.get("/v1/models")[1]["data"]}
    assert models == {"tiny-llama": "2", "tiny-llama-1": "1"}
    assert agent.get("/health") == (200, {"status": "ok", "reasons": []})


def test_four_clients_stream_while_two_updates_come_and_no_request_fails(
    home: Home, start: Callable[..., Running]
) -> None:
    first = home.brings("1")
    home.updates(first)
    agent = start(duty=0.02)  # or the tiny model would be done before the first update has come
    with ExitStack() as clients:
        streams: list[http.client.HTTPResponse] = []
        for _ in range(4):
            client = clients.enter_context(closing(agent.connect()))
            ask(client, stream=True, **ENDLESS)
            streams.append(client.getresponse())
            read_until_text(streams[-1])
        for number in ("2", "3"):
            home.updates(home.brings(number))
            until(lambda: [answer(agent) == 200, version(agent) == number] == [True, True])  # noqa: B023 - used at once
        home.store.collect()
        assert home.store.find(first) is not None, "streams have it open"
        for stream in streams:
            read_until_text(stream)  # on the release that they began with
            stream.close()
    until(lambda: home.store.collect() > 0)
    assert home.store.find(first) is None
    assert [one.ref.id for one in home.store.installed()] == ["tiny-llama-2", "tiny-llama-3"]


def test_the_agent_itself_tries_a_release_and_moves_to_it(home: Home, start: Callable[..., Running]) -> None:
    home.updates(home.brings("1"))
    agent = start()
    agent.agent.activation.try_release(CHANNEL, home.brings("2", health=SOAK), tell=silent)
    assert (version(agent), home.store.state().line(CHANNEL).soaking) == ("2", True)
    card = agent.agent.shelf.card("tiny-llama")
    assert (card.active, card.loaded) == (True, True)


def test_a_release_that_fails_its_trial_never_serves(home: Home, start: Callable[..., Running]) -> None:
    def wrong(folder: Path) -> None:
        def change(manifest: dict[str, list[dict[str, list[int]]]]) -> None:
            for golden in manifest["golden"]:
                golden["tokens"] = [(token + 1) % 320 for token in golden["tokens"]]

        edit(folder, change)

    home.updates(home.brings("1"))
    agent = start()
    with pytest.raises(FailedTrial, match="golden answers"):
        agent.agent.activation.try_release(CHANNEL, home.brings("2", change=wrong), tell=silent)
    assert (version(agent), answer(agent)) == ("1", 200)


def test_a_release_that_the_shelf_cannot_load_is_gone_back_from(home: Home, start: Callable[..., Running]) -> None:
    def torn(folder: Path) -> None:
        path = folder / contract.DATA_FILE
        path.write_bytes(bytes(path.stat().st_size))

    home.updates(home.brings("1"))
    agent = start()
    bad = home.brings("2", health=SOAK, change=torn)
    home.updates(bad)  # another process, whose trial saw nothing
    until(lambda: home.store.state().refused(bad.sha256) is not None)
    assert (version(agent), answer(agent)) == ("1", 200)
    assert home.store.state().line(CHANNEL).trial is None


def test_going_back_moves_requests_back(home: Home, start: Callable[..., Running]) -> None:
    for number in ("1", "2"):
        home.updates(home.brings(number))
    agent = start()
    agent.agent.activation.rollback(CHANNEL)
    assert (version(agent), answer(agent)) == ("1", 200)


def test_an_adapter_comes_to_a_model_that_stays_loaded(home: Home, start: Callable[..., Running]) -> None:
    base = install_folder(home.store, ADAPTABLE, sequence=1)
    home.updates(base)
    agent = start()
    kept = agent.model
    home.updates(install_folder(home.store, WARM, sequence=2), "warm")
    until(lambda: answer(agent, model="tiny-llama:warm") == 200)
    assert agent.model is kept


def test_an_agent_that_stops_in_order_and_starts_again_goes_on_with_the_soak(
    home: Home, start: Callable[..., Running]
) -> None:
    home.updates(home.brings("1"))
    home.updates(trial := home.brings("2", health=SOAK))
    for _ in range(4):
        agent = start()
        assert version(agent) == "2"
        agent.stop()
    assert home.store.state().line(CHANNEL).trial == trial


def test_f2_an_agent_that_is_killed_twice_while_a_release_is_on_trial_serves_the_one_before(
    home: Home, start: Callable[..., Running]
) -> None:
    home.updates(home.brings("1"))
    home.updates(home.brings("2", health=SOAK))
    command = [sys.executable, "-m", "edgekit", "serve", str(home.models), "--port", "0", "--json"]
    with (home.folder / "log").open("wb") as log:
        for _ in range(2):
            with subprocess.Popen(command, cwd=ROOT, env=_environment(home), stdout=subprocess.PIPE, stderr=log) as run:
                assert run.stdout is not None
                try:
                    said = b"".join(iter(run.stdout.readline, b"}\n"))
                finally:
                    run.kill()
                assert b'"model": "tiny-llama"' in said
    agent = start()
    assert version(agent) == "1"
    assert home.store.state().refusals[0].release.id == "tiny-llama-2"


def test_a_release_that_is_damaged_gives_way_at_the_start_until_it_is_whole_again(
    home: Home, start: Callable[..., Running]
) -> None:
    home.updates(home.brings("1"))
    second = home.store.find(home.brings("2"))
    assert second is not None
    home.updates(second.ref)
    weights = second.folder / contract.DATA_FILE
    right = weights.read_bytes()
    rot(weights)
    agent = start()
    assert (version(agent), answer(agent)) == ("1", 200)
    assert agent.agent.releases.state().line(CHANNEL).active == second.ref
    second.folder.chmod(0o700)
    weights.unlink()
    weights.write_bytes(right)
    agent.agent.releases.believe(second.ref)
    until(lambda: [answer(agent), version(agent)] == [200, "2"])


def _environment(home: Home) -> dict[str, str]:
    return {**os.environ, "EDGEKIT_HOME": str(home.folder), "EDGEKIT_ENGINE_THREADS": "1"}


def test_a_record_that_is_lost_stops_nobody(
    home: Home, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    for number in ("1", "2"):
        home.updates(home.brings(number))
    for path in home.store.folder.glob("state.[01]"):
        path.write_bytes(b"torn")
    agent = start()
    assert (version(agent), answer(agent)) == ("2", 200)
    assert "is lost" in caplog.text


def test_a_line_whose_release_is_gone_serves_the_one_before(home: Home, start: Callable[..., Running]) -> None:
    previous = home.brings("1")
    home.updates(previous)
    gone = Ref(id="tiny-llama-2", kind="model", sequence=2, sha256="0" * 64)
    home.store.change(lambda state: state.with_line(Line(channel=CHANNEL, active=gone, previous=previous)))
    assert version(start()) == "1"
    assert home.store.state().line(CHANNEL) == Line(channel=CHANNEL, active=previous)
