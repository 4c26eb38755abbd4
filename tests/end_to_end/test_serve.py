"""The demo model, exported to INT4, served over HTTP and asked by OpenAI's client."""

import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from device_agent import Model
from device_agent.app import Agent
from device_agent.check import verify
from edgekit.settings import ModelsSettings, ServerSettings, Settings
from tests.device_agent.bundles import tokens_when_idle

pytestmark = pytest.mark.demo

QUESTION: ChatCompletionUserMessageParam = {
    "role": "user",
    "content": "What is the capital of France? Answer in one sentence.",
}


@pytest.fixture(scope="module")
def agent(demo_bundle_int4: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    settings = Settings(server=ServerSettings(port=0, drain_s=0.5), models=ModelsSettings(path=str(demo_bundle_int4)))
    made = Agent(settings, tmp_path_factory.mktemp("served"))
    thread = threading.Thread(target=made.run, args=(lambda *_: None,))
    thread.start()
    yield made
    made.stop()
    thread.join()


@pytest.fixture(scope="module")
def model(agent: Agent) -> Model:
    lease = agent.shelf.lease("default")
    lease.release()
    assert isinstance(lease.model, Model)
    return lease.model


@pytest.fixture(scope="module")
def sdk(agent: Agent) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{agent.server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def name(sdk: openai.OpenAI) -> str:
    (only,) = sdk.models.list()
    return only.id


def test_the_bundle_passes_its_own_check(demo_bundle_int4: Path) -> None:
    assert verify(demo_bundle_int4, lambda _: None) == []


def test_the_capital_of_france_is_paris(sdk: openai.OpenAI, name: str) -> None:
    answer = sdk.chat.completions.create(model=name, messages=[QUESTION], temperature=0, max_tokens=64)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens < 64


def test_a_stream_says_the_same_piece_by_piece(sdk: openai.OpenAI, name: str, model: Model) -> None:
    whole = "".join(model.chat([{"role": "user", "content": str(QUESTION["content"])}], max_tokens=64))
    stream = sdk.chat.completions.create(model=name, messages=[QUESTION], temperature=0, max_tokens=64, stream=True)
    deltas = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(delta or "" for delta in deltas) == whole
    assert sum(map(bool, deltas)) > 3


def test_the_first_words_arrive_while_the_model_is_still_busy(sdk: openai.OpenAI, name: str, model: Model) -> None:
    before = tokens_when_idle(model)
    stream = sdk.completions.create(model=name, prompt="Once upon a time", temperature=0, max_tokens=128, stream=True)
    first = next(chunk.choices[0].text for chunk in stream if chunk.choices[0].text)
    assert first
    assert model.busy
    stream.close()  # and whoever leaves stops it
    assert tokens_when_idle(model) - before < 100
