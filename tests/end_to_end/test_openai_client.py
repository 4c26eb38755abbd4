"""The client library that most field apps use, against the real server."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator

import openai
import pytest

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, Server, create_app
from edgekit.errors import ContextOverflow, Overloaded
from tests.fakes import FakeService, script, services


@pytest.fixture
def service() -> FakeService:
    return FakeService(replies=script("Pa", "ris", "."))


@pytest.fixture
def server(service: FakeService) -> Iterator[Server]:
    settings = HttpSettings(poll_s=0.02, threads=6, drain_s=0.5)
    started = Server(create_app(services(service), settings), host="127.0.0.1", port=0, settings=settings)
    thread = threading.Thread(target=started.serve)
    thread.start()
    yield started
    started.close()
    thread.join()


@pytest.fixture
def sdk(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        yield client


def test_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["tiny"]
    assert sdk.models.retrieve("tiny").owned_by == "edgekit"


def test_chat(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hello"}], temperature=0, max_completion_tokens=9, seed=1
    )
    assert answer.choices[0].message.content == "Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == 9


def test_a_conversation_can_send_back_the_answer_it_got(sdk: openai.OpenAI, service: FakeService) -> None:
    first = sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hello"}])
    turn = first.choices[0].message
    sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hello"}, turn.model_dump(), {"role": "user", "content": "More"}],  # type: ignore[list-item]  # what apps do
    )
    assert [message.content for message in service.conversations[1]] == ["Hello", "Paris.", "More"]


def test_chat_stream_with_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Paris."
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 4


def test_chat_stream_helper(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="tiny", messages=[{"role": "user", "content": "Hello"}]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Paris."


def test_completion_and_its_stream(sdk: openai.OpenAI) -> None:
    assert sdk.completions.create(model="tiny", prompt="Hello").choices[0].text == "Paris."
    stream = sdk.completions.create(model="tiny", prompt="Hello", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Paris."


def test_async_chat_and_stream(server: Server) -> None:
    async def both() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
            answer = await client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hello"}])
            stream = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return answer.choices[0].message.content, text

    assert asyncio.run(both()) == ("Paris.", "Paris.")


def test_errors_become_the_sdks_own(sdk: openai.OpenAI, service: FakeService) -> None:
    with pytest.raises(openai.NotFoundError):
        sdk.completions.create(model="gpt-4", prompt="Hello")
    service.refusal = ContextOverflow(300, 200)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.completions.create(model="tiny", prompt="Hello")
    assert refused.value.code == "context_length_exceeded"
    service.refusal = Overloaded("8 requests wait")
    with pytest.raises(openai.InternalServerError):
        sdk.completions.create(model="tiny", prompt="Hello")


def test_an_error_in_the_middle_of_a_stream_is_raised(sdk: openai.OpenAI, service: FakeService) -> None:
    service.replies = [Piece(text="a", tokens=(1,)), Overloaded("too hot")]
    stream = sdk.completions.create(model="tiny", prompt="Hello", stream=True)
    with pytest.raises(openai.APIError, match="too hot"):
        list(stream)


def test_closing_a_stream_early_stops_the_generation(sdk: openai.OpenAI, service: FakeService) -> None:
    service.replies = script("a")[:-1]
    stream = sdk.completions.create(model="tiny", prompt="Hello", stream=True)
    assert next(iter(stream)).choices[0].text == "a"
    stream.close()
    assert service.answers.get(timeout=20).cancelled.wait(20)


def test_the_standard_library_is_client_enough(server: Server) -> None:
    body = json.dumps({"model": "tiny", "prompt": "Hello"}).encode()
    request = urllib.request.Request(f"{server.url}/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["choices"][0]["text"] == "Paris."
