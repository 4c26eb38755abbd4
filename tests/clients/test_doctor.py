"""`edgekit doctor` on a good agent: all green."""

import json
import os
import subprocess

import pytest

from tests.clients.agent import Agent


def test_doctor_is_green(agent: Agent, request: pytest.FixtureRequest) -> None:
    command = [request.config.getoption("clients"), "-m", "edgekit", "doctor", "--url", agent.url, "--json"]
    environment = {**os.environ, "EDGEKIT_HOME": str(agent.home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert [finding for finding in found if finding["status"] != "green"] == []
    assert {"chat", "tools", "structured output", "embeddings", "messages", "admin"} <= {
        each["check"] for each in found
    }
    assert done.returncode == 0
