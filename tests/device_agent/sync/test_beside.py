"""A running agent, and `edgekit sync` of another process beside it: the agent takes over, and reports what is there."""

import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.activation.records import Verdict
from device_agent.app import Agent
from device_agent.http.services import Card
from device_agent.sync import composing
from device_agent.sync.composing import compose_alone
from device_agent.sync.identity import enrol
from device_agent.sync.passes import Passes
from device_agent.sync.records import LinkSettings
from edgekit.release.manifest import HealthFloor
from edgekit.settings import EngineOptions, ServerSettings, Settings, SyncSettings
from tests.device_agent.agents import ENDLESS, ask, read_until_text
from tests.device_agent.bundles import TINY, copy_to, edit
from tests.repositories import Repository


class Beside:
    """The agent at a free port, its folder, and what another process does there."""

    def __init__(self, folder: Path) -> None:
        self.made = Repository(now=time.time())
        self.repository = folder / "repository"
        self.home = folder / "home"
        self._scratch = folder
        enrol(self.home, self.made.provisioning(), device_id="board-7", labels={})
        settings = LinkSettings(repositories=(str(self.repository),))
        self.other = Passes(
            compose_alone(self.home, settings, models=self.home / "models", clock=time.time), clock=time.time
        )

    def publish(self, version: str) -> None:
        scratch = self._scratch / version
        scratch.mkdir()
        bundle = copy_to(scratch, TINY)
        edit(bundle, lambda manifest: manifest.update(version=version))
        release = self.made.add_folder(bundle, health=HealthFloor(soak_s=0))
        self.made.set_channel("stable", release.id, version=len(self.made.made))
        self.made.publish()
        self.made.write(self.repository)

    def sync(self) -> None:
        (outcome,) = self.other.update(lambda _: None, threading.Event(), anytime=True)
        assert outcome.ending == "installed", outcome.reason


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beside:
    monkeypatch.setattr(composing, "ChildProbe", lambda *_, **__: lambda *_: Verdict(ok=True))
    made = Beside(tmp_path)
    made.publish("1.0")
    made.sync()
    return made


@pytest.fixture
def agent(beside: Beside) -> Iterator[Agent]:
    with running(beside, EngineOptions(threads=1)) as found:
        yield found


@contextmanager
def running(beside: Beside, engine: EngineOptions) -> Iterator[Agent]:
    settings = Settings(
        server=ServerSettings(port=0),
        engine=engine,
        sync=SyncSettings(interval_s=0, repositories=(str(beside.repository),)),
    )
    found = Agent(settings, beside.home)
    ready = threading.Event()

    def greet(_: str, __: Card | None) -> None:
        ready.set()

    thread = threading.Thread(target=found.run, args=(greet,))
    thread.start()
    try:
        assert ready.wait(120)
        yield found
    finally:
        found.stop()
        thread.join()


def asked(agent: Agent, path: str, *, admin: str = "", post: bool = False) -> Any:
    headers = {"Authorization": f"Bearer {admin}"} if admin else {}
    request = urllib.request.Request(f"{agent.server.url}{path}", headers=headers, method="POST" if post else "GET")
    with urllib.request.urlopen(request, timeout=60) as answer:
        raw = answer.read()
    return json.loads(raw) if path != "/metrics" else raw.decode()


def until(found: Any, wanted: Any) -> None:
    """Asks again until it is so; the test's own time limit, if any, is its runner's."""
    event = threading.Event()
    while found() != wanted:
        event.wait(0.05)


def versions(agent: Agent) -> list[str]:
    return [model["meta"]["version"] for model in asked(agent, "/v1/models")["data"]]


def test_what_another_process_installs_is_taken_over(agent: Agent, beside: Beside) -> None:
    token = (beside.home / "admin-token").read_text().strip()
    assert versions(agent) == ["1.0"]
    beside.publish("2.0")
    beside.sync()
    until(lambda: versions(agent), ["2.0"])
    found = asked(agent, "/v1/edgekit/sync", admin=token)
    assert found["lines"][0]["active"] == "tiny-llama-2.0"
    assert [one["id"] for one in found["installed"] if one["active"]] == ["tiny-llama-2.0"]
    assert 'edgekit_sync_release_info{channel="stable",release="tiny-llama-2.0",role="active"} 1.0' in asked(
        agent, "/metrics"
    )


def test_the_agent_updates_itself_when_an_operator_says_so(agent: Agent, beside: Beside) -> None:
    token = (beside.home / "admin-token").read_text().strip()
    beside.publish("2.0")
    asked(agent, "/v1/edgekit/sync/update", admin=token, post=True)
    until(lambda: versions(agent), ["2.0"])
    until(lambda: asked(agent, "/v1/edgekit/sync", admin=token)["lines"][0]["active"], "tiny-llama-2.0")
    until(lambda: counted(agent), 1.0)  # once the update is over, which serves before


def release_in(metrics: str, role: str) -> list[str]:
    """Which releases the metrics show in a part."""
    found = [line for line in metrics.splitlines() if line.startswith("edgekit_sync_release_info{")]
    return [line.split('release="')[1].split('"')[0] for line in found if f'role="{role}"' in line]


def versions_in(metrics: str) -> list[str]:
    found = [line for line in metrics.splitlines() if line.startswith("edgekit_model_info{")]
    return [line.split('version="')[1].split('"')[0] for line in found]


def test_a_switch_under_four_streams_fails_nobody_and_is_visible_in_the_metrics(beside: Beside) -> None:
    slow = EngineOptions(threads=1, slots=8, duty=0.02)  # or answers would be done before the update is
    with running(beside, slow) as agent, ExitStack() as clients:
        before = asked(agent, "/metrics")
        streams = []
        for _ in range(4):
            client = http.client.HTTPConnection("127.0.0.1", agent.server.port, timeout=60)
            clients.enter_context(closing(client))
            ask(client, stream=True, **ENDLESS)
            streams.append(client.getresponse())
            read_until_text(streams[-1])
        beside.publish("2.0")
        asked(agent, "/v1/edgekit/sync/update", admin=(beside.home / "admin-token").read_text().strip(), post=True)
        until(lambda: [answer_of(agent), counted(agent)], [200, 1.0])
        for stream in streams:
            read_until_text(stream)  # from the release that it began with
        after = asked(agent, "/metrics")
    assert (release_in(before, "active"), release_in(before, "previous")) == (["tiny-llama-1.0"], [])
    assert (release_in(after, "active"), release_in(after, "previous")) == (["tiny-llama-2.0"], ["tiny-llama-1.0"])
    assert (versions_in(before), versions_in(after)) == (["1.0"], ["2.0"])
    assert 'edgekit_sync_outcomes_total{ending="installed"} 0.0' in before
    assert not [line for line in after.splitlines() if 'finish="error"' in line]


def counted(agent: Agent) -> float:
    (line,) = (
        line
        for line in asked(agent, "/metrics").splitlines()
        if line.startswith('edgekit_sync_outcomes_total{ending="installed"}')
    )
    return float(line.split()[-1])


def answer_of(agent: Agent) -> int:
    """Somebody asks meanwhile, and is answered."""
    with closing(http.client.HTTPConnection("127.0.0.1", agent.server.port, timeout=60)) as client:
        ask(client, max_tokens=1, temperature=0)
        status = client.getresponse().status
    assert status == 200
    return status


def test_nobody_is_warned_of_a_folder_that_is_not_needed(
    beside: Beside, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    agent = request.getfixturevalue("agent")
    beside.publish("2.0")
    beside.sync()
    until(lambda: versions(agent), ["2.0"])
    assert not [line for line in caplog.messages if "there are no models" in line]
