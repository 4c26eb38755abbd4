"""litellm: completions, streams, embeddings, and its own classes of errors."""

import os
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or importing it asks the network for prices

import litellm

from tests.clients.agent import FORCED, FORCING, Agent


@pytest.fixture
def common(agent: Agent) -> dict[str, Any]:
    litellm.telemetry = False
    where = {"model": f"openai/{agent.model}", "api_base": agent.v1, "api_key": "none"}
    return where | {"num_retries": 0, "max_retries": 0}


ASK = [{"role": "user", "content": "What is the capital of France?"}]


def test_completion_and_stream(common: dict[str, Any]) -> None:
    whole = litellm.completion(**common, messages=ASK, max_tokens=20, extra_body=FORCING)
    pieces = litellm.completion(**common, messages=ASK, max_tokens=20, extra_body=FORCING, stream=True)
    assert whole.choices[0].message.content == FORCED
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == FORCED


def test_an_overflow_is_recognised(common: dict[str, Any]) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**common, messages=[{"role": "user", "content": "word " * 20_000}])


def test_embedding(common: dict[str, Any], agent: Agent) -> None:
    common["model"] = f"openai/{agent.encoder}"
    found = litellm.embedding(**common, input=["a cat"])
    assert found.data[0]["embedding"]
