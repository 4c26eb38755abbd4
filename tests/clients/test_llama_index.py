"""LlamaIndex's OpenAILike."""

import json

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from tests.clients.agent import FORCED, FORCING, Agent


@pytest.fixture
def llm(agent: Agent) -> OpenAILike:
    cards = json.loads(agent.get("/v1/models"))["data"]
    (context,) = (card["meta"]["n_ctx"] for card in cards if card["id"] == agent.model)
    return OpenAILike(
        model=agent.model,
        api_base=agent.v1,
        api_key="none",
        is_chat_model=True,
        context_window=context,
        max_tokens=30,
        temperature=0,
        max_retries=0,
    )


def test_chat_and_its_stream_agree(llm: OpenAILike) -> None:
    turns = [ChatMessage(role="user", content="What is the capital of France?")]
    assert llm.chat(turns, extra_body=FORCING).message.content == FORCED
    *_, last = llm.stream_chat(turns, extra_body=FORCING)
    assert last.message.content == FORCED


def test_complete(llm: OpenAILike) -> None:
    assert llm.complete("The capital of France is").text
