"""POST /v1/embeddings: texts to vectors, as the SDKs ask for them."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from device_agent.http import create_app
from device_agent.http.routes.embeddings import TOGETHER
from device_agent.http.schema import limits
from tests.device_agent.http.conftest import SETTINGS
from tests.fakes import FakeBook, FakeEncoder, FakeModels, services

PATH = "/v1/embeddings"


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def book() -> FakeBook:
    return FakeBook()


@pytest.fixture
def client(encoder: FakeEncoder, book: FakeBook) -> Iterator[FlaskClient]:
    models = FakeModels(encoder=encoder)
    yield create_app(services(models=models, book=book), SETTINGS).test_client()
    assert models.held == []


def vector(*numbers: float) -> Any:
    return pytest.approx(np.array(numbers) / np.linalg.norm(numbers), rel=1e-6)


def vectors(client: FlaskClient, **fields: Any) -> list[Any]:
    answer = client.post(PATH, json={"model": "encoder"} | fields)
    assert answer.status_code == 200, answer.get_json()
    return [entry["embedding"] for entry in answer.get_json()["data"]]


def test_the_reply_has_openais_shape(client: FlaskClient, book: FakeBook) -> None:
    body = client.post("/embeddings", json={"model": "encoder", "input": ["abc", "b"], "user": "me"}).get_json()
    assert [entry.pop("embedding") for entry in body["data"]] == [vector(3, 97, 2), vector(1, 98, 2)]
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}, {"object": "embedding", "index": 1}],
        "model": "encoder",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    (page,) = book.pages
    assert (page.dialect, page.model, page.input_tokens, page.output_tokens) == ("embeddings", "encoder", 4, 0)
    assert page.finish == "stop"


def test_one_text_needs_no_list(client: FlaskClient) -> None:
    assert vectors(client, input="abc") == [vector(3, 97, 2)]


def test_order_is_kept_over_many_texts(client: FlaskClient) -> None:
    texts = ["x" * (1 + index % 40) for index in range(3 * TOGETHER + 1)]
    assert vectors(client, input=texts) == [vector(len(text), ord("x"), 2) for text in texts]


def test_base64_is_little_endian_float32(client: FlaskClient) -> None:
    (coded,) = vectors(client, input="abc", encoding_format="base64")
    assert list(np.frombuffer(base64.b64decode(coded), dtype="<f4")) == vector(3, 97, 2)


def test_fewer_dimensions_are_of_length_one_again(client: FlaskClient) -> None:
    assert vectors(client, input="abc", dimensions=2) == [vector(3, 97)]
    assert vectors(client, input="abc", dimensions=3) == vectors(client, input="abc")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", None]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["a"] * (limits.INPUTS + 1)}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 4}, "dimensions"),
        ({"input": "a", "truncate": True}, "truncate"),
        ({"input": "a", "user": 5}, "user"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, fields: Any, param: str) -> None:
    answer = client.post(PATH, json={"model": "encoder"} | fields)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]]])
def test_token_ids_are_refused_with_what_langchain_must_be_told(client: FlaskClient, ids: Any) -> None:
    answer = client.post(PATH, json={"model": "encoder", "input": ids})
    assert answer.status_code == 400
    assert "check_embedding_ctx_length=False" in answer.get_json()["error"]["message"]


def test_a_text_that_is_too_long_is_an_overflow(client: FlaskClient, encoder: FakeEncoder, book: FakeBook) -> None:
    answer = client.post(PATH, json={"model": "encoder", "input": ["a", "b" * 51]})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "context_length_exceeded")
    assert encoder.embedded == []
    assert [page.finish for page in book.pages] == ["error"]


def test_too_many_tokens_together_are_refused(
    client: FlaskClient, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INPUT_TOKENS", 5)
    answer = client.post(PATH, json={"model": "encoder", "input": ["abc", "def"]})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "input")
    assert encoder.embedded == []


def test_a_client_that_leaves_is_computed_for_no_further(
    client: FlaskClient, encoder: FakeEncoder, book: FakeBook
) -> None:
    gone = [False]
    encoder.before = lambda: gone.__setitem__(0, True)
    answer = client.post(
        PATH,
        json={"model": "encoder", "input": ["a"] * (5 * TOGETHER)},
        environ_overrides={"waitress.client_disconnected": lambda: gone[0]},
    )
    assert answer.status_code == 499
    assert len(encoder.embedded) == TOGETHER
    assert [page.finish for page in book.pages] == ["cancelled"]
