"""The openai SDK: sync, async, streams, structured output, tools, embeddings, responses."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest

from tests.clients.agent import FORCED, FORCING, Agent

ASK: list[Any] = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


class Answer(pydantic.BaseModel):
    """With bounds: a small model may write one string or one number without end."""

    city: str = pydantic.Field(max_length=20)
    continent: Literal["Europe", "Asia", "Africa"]
    millions: int = pydantic.Field(ge=1, le=99)


@pytest.fixture
def sdk(agent: Agent) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=agent.v1, api_key="none", max_retries=0, timeout=300) as client:
        yield client


def test_models(sdk: openai.OpenAI, agent: Agent) -> None:
    found = {model.id for model in sdk.models.list()}
    assert {agent.model, agent.encoder} <= found
    assert sdk.models.retrieve(agent.model).object == "model"


def test_chat(sdk: openai.OpenAI, agent: Agent) -> None:
    answer = sdk.chat.completions.create(model=agent.model, messages=ASK, temperature=0, max_completion_tokens=40)
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details


def test_a_stream_says_what_the_whole_answer_says(sdk: openai.OpenAI, agent: Agent) -> None:
    common: Any = {"model": agent.model, "messages": ASK, "max_tokens": 24, "extra_body": FORCING}
    whole = sdk.chat.completions.create(**common).choices[0]
    chunks = list(sdk.chat.completions.create(**common, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole.message.content
    assert whole.message.content == FORCED
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.finish_reason


def test_several_choices_logprobs_bias_and_seed(sdk: openai.OpenAI, agent: Agent) -> None:
    common: Any = {"model": agent.model, "messages": ASK, "max_tokens": 6, "n": 3, "seed": 5, "temperature": 1.2}
    first, *more = (sdk.chat.completions.create(**common, logprobs=True, top_logprobs=4) for _ in range(4))
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    texts = [tuple(choice.message.content for choice in answer.choices) for answer in (first, *more)]
    assert len(set(texts)) < len(texts)  # 4-bit kernels round otherwise where others are served beside
    for choice in first.choices:
        assert choice.logprobs
        for token in choice.logprobs.content or ():
            assert len(token.top_logprobs) == 4
            assert token.logprob <= 0
            assert bytes(token.bytes or ()).decode(errors="replace")


def test_parse_gives_a_pydantic_model(sdk: openai.OpenAI, agent: Agent) -> None:
    done = sdk.chat.completions.parse(model=agent.model, messages=ASK, response_format=Answer, temperature=0)
    assert isinstance(done.choices[0].message.parsed, Answer)


def test_json_object(sdk: openai.OpenAI, agent: Agent) -> None:
    done = sdk.chat.completions.create(
        model=agent.model, messages=ASK, response_format={"type": "json_object"}, temperature=0, max_tokens=200
    )
    if done.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(done.choices[0].message.content or ""), dict)


def test_a_required_tool_is_called_and_its_result_used(sdk: openai.OpenAI, agent: Agent) -> None:
    question: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    first = sdk.chat.completions.create(
        model=agent.model, messages=question, tools=[WEATHER], tool_choice="required", temperature=0
    )
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
    second = sdk.chat.completions.create(
        model=agent.model,
        messages=[
            *question,
            message.model_dump(exclude_none=True),  # type: ignore[list-item]  # what apps do
            {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": -3}'},
        ],
        tools=[WEATHER],
        max_tokens=40,
    )
    assert second.choices[0].finish_reason in {"stop", "length", "tool_calls"}


def test_streamed_tool_calls_accumulate(sdk: openai.OpenAI, agent: Agent) -> None:
    with sdk.chat.completions.stream(
        model=agent.model,
        messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
    ) as stream:
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    call = calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] in {"C", "F"}


def test_async_requests_run_together(agent: Agent) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=agent.v1, api_key="none", max_retries=0, timeout=300) as client:
            one = client.chat.completions.create
            answers = await asyncio.gather(
                *(one(model=agent.model, messages=ASK, max_tokens=16, temperature=0) for _ in range(4))
            )
            stream = await one(model=agent.model, messages=ASK, max_tokens=16, temperature=0, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [*(answer.choices[0].message.content for answer in answers), text]

    assert all(asyncio.run(ask()))


def test_completions_echo_the_prompt_with_logprobs(sdk: openai.OpenAI, agent: Agent) -> None:
    done = sdk.completions.create(model=agent.model, prompt="The sky is", echo=True, logprobs=2, max_tokens=1, seed=1)
    choice: Any = done.choices[0]
    assert choice.text.startswith("The sky is")
    logprobs, tokens = choice.logprobs.token_logprobs, choice.logprobs.tokens
    assert logprobs[0] is None
    assert all(value is not None and value < 0 for value in logprobs[1:])
    assert "".join(tokens) == choice.text


@pytest.mark.parametrize("dimensions", [None, 64])
def test_embeddings(sdk: openai.OpenAI, agent: Agent, dimensions: int | None) -> None:
    texts = ["a cat", "a kitten", "tax law"]
    size: Any = {} if dimensions is None else {"dimensions": dimensions}
    found = sdk.embeddings.create(model=agent.encoder, input=texts, **size)  # base64 on the wire
    plain = sdk.embeddings.create(model=agent.encoder, input=texts, encoding_format="float", **size)
    vectors = [item.embedding for item in found.data]
    assert [item.index for item in found.data] == [0, 1, 2]
    for vector, item in zip(vectors, plain.data, strict=True):
        assert vector == pytest.approx(item.embedding)
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-3)


def test_responses(sdk: openai.OpenAI, agent: Agent) -> None:
    done = sdk.responses.create(
        model=agent.model, input="What is the capital of France?", instructions="Be brief.", max_output_tokens=30
    )
    assert done.output_text
    assert done.usage
    events: list[Any] = list(
        sdk.responses.create(model=agent.model, input="Say hello.", max_output_tokens=10, stream=True)
    )
    assert events[0].type == "response.created"
    assert events[-1].type in {"response.completed", "response.incomplete"}
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == events[-1].response.output_text


def test_responses_parse(sdk: openai.OpenAI, agent: Agent) -> None:
    done: Any = sdk.responses.parse(model=agent.model, input="Name a capital.", text_format=Answer, temperature=0)
    assert isinstance(done.output_parsed, Answer)


def test_a_too_long_prompt_is_refused_once_and_by_name(sdk: openai.OpenAI, agent: Agent) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model=agent.model, messages=[{"role": "user", "content": "word " * 20_000}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as unknown:
        sdk.chat.completions.create(model=agent.model, messages=ASK, extra_body={"mirostat": 2})
    assert unknown.value.param == "mirostat"
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="gpt-4", messages=ASK)
