"""What there is, as clients and as people are told; and who may change it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from device_agent.http import create_app
from device_agent.http.replies.entries import CATALOGUE_TOKENS, model_list
from device_agent.http.services import Caller, Card
from device_agent.shelf import Found, Shelf
from device_agent.shelf.records import Adapter
from edgekit.errors import CorruptBundle, Overloaded
from tests.device_agent.http.conftest import SETTINGS
from tests.device_agent.shelf.shelves import Loader, entry
from tests.fakes import FakeEncoder, FakeGate, FakeModels, FakeService, manifest, services

ADMIN = Caller(key="2", name="boss", scopes=frozenset({"admin"}))
CARD = Card(id="tiny", manifest=manifest(), sha256="5" * 64, created=7, active=True, loaded=False)


@pytest.fixture
def client() -> FlaskClient:
    models = FakeModels(FakeService(), FakeEncoder())
    gate = FakeGate(keys={"boss": ADMIN})
    return create_app(services(models=models, gate=gate), SETTINGS).test_client()


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_the_list_is_openais_with_what_we_know_besides(client: FlaskClient, path: str) -> None:
    said = client.get(path).get_json()
    assert said["object"] == "list"
    first, second = said["data"]
    meta = first.pop("meta")
    assert first == {"id": "tiny", "object": "model", "created": 1_700_000_000, "owned_by": "edgekit"}
    assert meta == {
        "n_ctx": 256,
        "n_ctx_train": 256,
        "n_vocab": 300,
        "n_params": manifest().arch.parameters,
        "size": 96_001_000,
        "quantisation": "int4",
        "version": "1.0",
        "sha256": "5" * 64,
        "kind": "generate",
        "loaded": True,
        "active": True,
        "quality": {},
        "licence": None,
    }
    assert (second["id"], second["meta"]["active"]) == ("encoder", False)


def test_an_encoder_says_what_it_is_and_how_long_texts_may_be() -> None:
    shelf = Shelf(Found(entries=(entry("e", embeds=True),)), Loader())
    meta = create_app(replace(services(), models=shelf), SETTINGS).test_client().get("/v1/models/e").get_json()["meta"]
    assert (meta["kind"], meta["n_ctx"], meta["n_ctx_train"]) == ("embed", 64, 256)


def test_an_adapter_is_an_entry_of_its_own_after_its_base() -> None:
    said = model_list([replace(CARD, adapters=("legal", "poet")), replace(CARD, id="other")])
    assert [(entry.id, entry.meta.base) for entry in said.data[1:3]] == [("tiny:legal", "tiny"), ("tiny:poet", "tiny")]
    assert [entry.id for entry in said.data] == ["tiny", "tiny:legal", "tiny:poet", "other"]


def test_one_model_is_found_by_any_name_that_requests_may_use() -> None:
    adapted = replace(entry("a"), adapters={"poet": Adapter(Path("p"), "1")})
    shelf = Shelf(Found(entries=(adapted, entry("b"))), Loader(), strategies=("direct",))
    client = create_app(replace(services(), models=shelf), SETTINGS).test_client()
    asked = {"a": "a", "a:poet": "a:poet", "default": "a", "a@direct": "a", "b": "b"}
    assert {name: client.get(f"/v1/models/{name}").get_json()["id"] for name in asked} == asked
    refused = client.get("/v1/models/c/d")
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (404, "model_not_found")


def test_models_are_told_while_none_is_loaded() -> None:
    shelf = Shelf(Found(entries=(entry("a"),)), Loader())  # nothing is ever loaded: it was not started
    client = create_app(replace(services(), models=shelf), SETTINGS).test_client()
    assert client.get("/v1/models").get_json()["data"][0]["meta"]["loaded"] is False
    assert client.get("/v1/edgekit/models").get_json()["data"][0]["engine"] is None


def test_the_catalogue_tells_what_people_compare_models_by(client: FlaskClient) -> None:
    first = client.get("/v1/edgekit/models").get_json()["data"][0]
    assert set(first) == {
        *("id", "kind", "active", "loaded", "version", "created", "sha256", "architecture", "quantisation", "licence"),
        *("source", "bytes", "memory_bytes", "context", "quality", "adapters", "files", "card", "measured", "engine"),
    }
    assert set(first["architecture"]) == {
        *("model_type", "layers", "hidden", "heads", "kv_heads", "vocab", "parameters"),
    }
    assert first["source"] == "gguf tiny.gguf"
    assert first["memory_bytes"] == 96_000_000 + CATALOGUE_TOKENS * 1_024
    assert first["files"][0] == {"path": "model.onnx", "size": 1_000}
    assert first["measured"] == {"prompt_tokens_per_s": 100.0, "decode_tokens_per_s": None}


@pytest.mark.parametrize("verb", ["activate", "unload"])
def test_only_an_admin_changes_what_is_loaded(client: FlaskClient, verb: str) -> None:
    path = f"/v1/edgekit/models/tiny/{verb}"
    assert client.post(path).status_code == 401
    answer = client.post(path, headers={"Authorization": "Bearer boss"})
    assert (answer.status_code, answer.get_json()["id"]) == (200, "tiny")
    assert client.get(path, headers={"Authorization": "Bearer boss"}).status_code == 405
    unknown = client.post(path.replace("tiny", "none"), headers={"Authorization": "Bearer boss"})
    assert (unknown.status_code, unknown.get_json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("problem", "status", "headers"),
    [
        (Overloaded("no memory", 5), 503, {"Retry-After": "5"}),
        (CorruptBundle("a", "it is torn"), 500, {}),
    ],
)
def test_a_model_that_cannot_be_had_is_an_error_of_the_agents(
    problem: Any, status: int, headers: dict[str, str]
) -> None:
    models = FakeModels(FakeService(), refusal=problem)
    client = create_app(services(models=models), SETTINGS).test_client()
    answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": [{"role": "user", "content": "a"}]})
    assert answer.status_code == status
    assert headers.items() <= dict(answer.headers).items()
    assert answer.get_json()["error"]["type"] == "server_error"
