"""langchain-openai: chat, streams, structured output both ways, tools, embeddings."""

from typing import Annotated, Any

import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.clients.agent import Agent


class Capital(pydantic.BaseModel):
    """A country's capital."""

    city: str = pydantic.Field(max_length=20)
    country: str = pydantic.Field(max_length=20)


@tool  # type: ignore[untyped-decorator,unused-ignore]  # typed only where the library is installed
def add(first: Annotated[int, pydantic.Field(ge=0, le=99)], second: Annotated[int, pydantic.Field(ge=0, le=99)]) -> int:
    """Add two whole numbers."""
    return first + second


@pytest.fixture
def chat(agent: Agent) -> Any:
    return ChatOpenAI(
        model=agent.model, base_url=agent.v1, api_key="none", temperature=0, max_completion_tokens=120, max_retries=0
    )


def test_invoke_and_usage(chat: Any) -> None:
    answer = chat.invoke([HumanMessage("What is the capital of France?")])
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}


def test_stream(chat: Any) -> None:
    pieces = list(chat.stream("Count from one to five."))
    assert len(pieces) > 2
    assert "".join(piece.content for piece in pieces)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: Any, method: str) -> None:
    found = chat.with_structured_output(Capital, method=method).invoke("What is the capital of France?")
    assert isinstance(found, Capital)


def test_tools_are_called_with_whole_names_also_in_a_stream(chat: Any) -> None:
    bound = chat.bind_tools([add], tool_choice="add")
    (call,) = bound.invoke("What is 3 plus 4?").tool_calls
    assert call["name"] == "add"
    assert set(call["args"]) == {"first", "second"}
    whole: Any = None
    for piece in bound.stream("What is 3 plus 4?"):
        whole = piece if whole is None else whole + piece
    assert [found["name"] for found in whole.tool_calls] == ["add"]
    assert all(isinstance(value, int) for value in whole.tool_calls[0]["args"].values())


def test_a_tools_result_goes_back(chat: Any) -> None:
    call = {"name": "add", "args": {"first": 3, "second": 4}, "id": "call_1", "type": "tool_call"}
    turns = [
        HumanMessage("What is 3 plus 4?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("7", tool_call_id="call_1"),
    ]
    assert isinstance(chat.invoke(turns), AIMessage)


def test_embeddings(agent: Agent) -> None:
    embeddings = OpenAIEmbeddings(
        model=agent.encoder, base_url=agent.v1, api_key="none", check_embedding_ctx_length=False
    )
    one, two = embeddings.embed_documents(["a cat", "tax law"])
    assert len(one) == len(two) == len(embeddings.embed_query("a kitten"))


def test_token_ids_of_another_vocabulary_are_refused_with_the_setting_to_change(agent: Agent) -> None:
    embeddings = OpenAIEmbeddings(model=agent.encoder, base_url=agent.v1, api_key="none", tiktoken_enabled=True)
    # What it sends without the setting; making the ids itself would ask the network for a vocabulary.
    with pytest.raises(Exception, match="check_embedding_ctx_length"):
        embeddings.client.create(model=agent.encoder, input=[[15339, 1917]])
