"""Keys and usage over HTTP, with the real gate and ledger behind them."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from device_agent.access.gate import Gate
from device_agent.access.keyfile import ADMIN_TOKEN
from device_agent.access.settings import AccessSettings
from device_agent.http import HttpSettings, create_app
from device_agent.http.services import Services
from device_agent.ledger import prices
from device_agent.ledger.database import FILE
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.settings import LedgerSettings
from tests.fakes import FakeBook, FakeModels, FakeService, script, services

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
KEYS = "/v1/edgekit/keys"


@dataclass
class Door:
    """A client of an agent in `home`, and how to ask it."""

    client: FlaskClient
    home: Path
    ledger: Ledger

    @property
    def admin(self) -> str:
        return (self.home / ADMIN_TOKEN).read_text().strip()

    def ask(self, path: str, key: str | None = None, *, method: str = "GET", body: Any = None) -> TestResponse:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.client.open(path, method=method, json=body, headers=headers)

    def made(self, **fields: Any) -> dict[str, Any]:
        answer = self.ask(KEYS, self.admin, method="POST", body={"name": "app"} | fields)
        assert answer.status_code == 200, answer.get_json()
        found: dict[str, Any] = answer.get_json()
        return found

    def chat(self, key: str | None = None) -> int:
        return self.ask("/v1/chat/completions", key, method="POST", body=CHAT).status_code


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    table = prices.parse('currency = "EUR"\n[models."*"]\ninput = 1e6\noutput = 1e6')
    ledger = Ledger.open(tmp_path, LedgerSettings(prices=table))
    gate = Gate.open(tmp_path, AccessSettings(), ledger)
    ledger.start()
    models = FakeModels(FakeService(replies=script("Pa", "ris")))
    behind = Services(models=models, gate=gate, books=(ledger,), keys=gate.keys, usage=ledger)
    app = create_app(behind, HttpSettings(poll_s=0.02))
    yield Door(app.test_client(), tmp_path, ledger)
    ledger.close()


def test_a_key_is_made_used_listed_and_revoked(door: Door) -> None:
    made = door.made(name="Field app", requests_per_minute=5)
    assert door.chat(made["key"]) == 200
    (listed,) = door.ask(KEYS, door.admin).get_json()["data"]
    assert "key" not in listed
    assert (listed["id"], listed["name"], listed["scopes"]) == (made["id"], "Field app", ["infer"])
    assert (listed["requests_per_minute"], listed["concurrent"], listed["revoked"]) == (5, None, False)
    assert listed["last_used"] % 3_600 == 0
    gone = door.ask(f"{KEYS}/{made['id']}", door.admin, method="DELETE")
    assert gone.get_json()["revoked"] is True
    assert door.chat(made["key"]) == 401  # also on loopback, where no key is needed
    assert door.chat() == 200


def test_a_secret_is_told_once(door: Door) -> None:
    made = door.made()
    assert made["key"].startswith("ek-")
    assert made["key"] not in door.ask(KEYS, door.admin).get_data(as_text=True)
    assert not [path for path in door.home.iterdir() if made["key"].encode() in path.read_bytes()]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("who", ["nobody", "user", "wrong"])
def test_keys_are_for_admins_even_on_loopback(door: Door, method: str, who: str) -> None:
    key = {"nobody": None, "user": door.made()["key"], "wrong": "ek-wrong"}[who]
    answer = door.ask(KEYS, key, method=method, body={"name": "mine", "scopes": ["admin"]})
    assert answer.status_code == (403 if who == "user" else 401)
    assert [key["name"] for key in door.ask(KEYS, door.admin).get_json()["data"]] == ["app"]


def test_an_admin_key_may_do_what_the_token_may(door: Door) -> None:
    boss = door.made(scopes=["admin"])["key"]
    assert door.ask(KEYS, boss).status_code == 200
    assert door.chat(boss) == 403  # it was not given `infer`


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "a", "scopes": ["root"]}, "scopes"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": "admin"}, "scopes"),
        ({"name": "a", "tokens_per_day": -1}, "tokens_per_day"),
        ({"name": "a", "tokens_per_day": 1.5}, "tokens_per_day"),
        ({"name": "a", "concurrent": 1 << 70}, "concurrent"),
        ({"name": "a", "requests_per_minute": "5"}, "requests_per_minute"),
        ({"name": "a", "expires_at": 5}, "expires_at"),
        ({"name": "a", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "a", "quota": 5}, "quota"),
        ([], None),
    ],
)
def test_a_wrong_wish_names_its_parameter(door: Door, body: Any, param: str | None) -> None:
    answer = door.ask(KEYS, door.admin, method="POST", body=body)
    assert answer.status_code == 400
    assert (answer.get_json()["error"]["param"] or "").split("[")[0] == (param or "")


def test_a_key_that_is_not_there_cannot_be_revoked(door: Door) -> None:
    assert door.ask(f"{KEYS}/key_0", door.admin, method="DELETE").status_code == 404


def test_a_key_beyond_its_quota_is_told_when_to_come_again(door: Door) -> None:
    key = door.made(requests_per_minute=2)["key"]
    assert [door.chat(key) for _ in range(3)] == [200, 200, 429]
    answer = door.ask("/v1/chat/completions", key, method="POST", body=CHAT)
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["X-RateLimit-Remaining-Requests"] == "0"
    assert answer.get_json()["error"]["type"] == "rate_limit_error"


def test_a_day_of_tokens_that_is_used_up_is_used_up_after_a_restart_too(door: Door) -> None:
    key = door.made(tokens_per_day=1)["key"]
    assert door.chat(key) == 200
    assert door.chat(key) == 429
    door.ledger.close()
    again = Ledger.open(door.home, LedgerSettings())
    again.start()
    gate = Gate.open(door.home, AccessSettings(), again)
    caller = gate.identify(key, local=True)
    assert gate.standing(caller).tokens_left == 0
    again.close()


def test_bodies_and_lists_cost_no_request_of_a_quota(door: Door) -> None:
    key = door.made(requests_per_minute=1)["key"]
    for _ in range(3):
        assert door.ask("/v1/usage", key).status_code == 200
    assert door.chat(key) == 200


# --- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("keep_texts", [False, True])
def test_books_hear_of_texts_only_where_they_are_kept(keep_texts: bool, stream: bool, tmp_path: Path) -> None:
    book = FakeBook()
    ledger = Ledger.open(tmp_path, LedgerSettings(keep_texts=keep_texts))
    behind = replace(services(FakeService(replies=script("Pa", "ris")), book=book), usage=ledger)
    client = create_app(behind, HttpSettings(poll_s=0.02)).test_client()
    client.post("/v1/chat/completions", json=CHAT | {"stream": stream}).get_data()
    client.post("/v1/completions", json={"model": "tiny", "prompt": "Once", "stream": stream}).get_data()
    assert client.get("/v1/usage").get_json()["texts_kept"] == keep_texts
    ledger.close()
    told = [(page.prompt, page.answer) for page in book.pages]
    assert told == ([("user: Hello", "Paris"), ("Once", "Paris")] if keep_texts else [("", ""), ("", "")])


# --- usage ----------------------------------------------------------------------------------


def test_everybody_sees_their_own_usage_and_an_admin_sees_all(door: Door) -> None:
    first, second = door.made(name="first"), door.made(name="second")
    for key in (first["key"], first["key"], second["key"], None):
        assert door.chat(key) == 200

    def seen(key: str | None) -> dict[str, int]:
        answer = door.ask("/v1/usage?group=key", key)
        assert answer.status_code == 200
        return {row["key_name"]: row["requests"] for row in answer.get_json()["data"]}

    assert seen(first["key"]) == {"first": 2}
    assert seen(None) == {"local": 1}
    assert seen(door.admin) == {"first": 2, "second": 1, "local": 1}


def test_usage_has_the_shape_that_is_promised(door: Door) -> None:
    door.chat()
    answer = door.ask("/v1/usage").get_json()
    (row,) = answer["data"]
    assert (answer["object"], answer["currency"]) == ("list", "EUR")
    assert list(row)[:5] == ["day", "key", "key_name", "model", "adapter"]
    assert list(row)[5:] == ["requests", "input_tokens", "cached_tokens", "output_tokens", "cost"]
    assert row["cost"] == row["input_tokens"] + row["output_tokens"]
    assert row["input_tokens"] > 0
    assert "day" not in door.ask("/v1/usage?group=model&days=1").get_json()["data"][0]


def test_the_same_sums_come_as_a_table(door: Door) -> None:
    door.chat()
    answer = door.ask("/v1/usage.csv?group=day,model")
    assert answer.mimetype == "text/csv"
    assert "usage.csv" in answer.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.get_data(as_text=True), newline=""))
    assert (row["model"], row["requests"], row["currency"]) == ("tiny", "1", "EUR")


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/usage.csv"])
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("days=0", "days"),
        ("days=-1", "days"),
        ("days=3661", "days"),
        ("days=x", "days"),
        ("days=", "days"),
        ("days=1e3", "days"),
        ("days=%D9%A3", "days"),
        ("days=" + "9" * 5_000, "days"),
        ("group=hour", "group"),
        ("group=day;drop", "group"),
        ("key=other", "key"),
    ],
)
def test_a_wrong_query_names_its_parameter(door: Door, path: str, query: str, param: str) -> None:
    answer = door.ask(f"{path}?{query}", door.admin)
    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == param


def test_a_ledger_that_cannot_be_read_is_an_error_object_and_serving_goes_on(door: Door) -> None:
    made = door.made()
    door.ledger.close()  # so that nobody repairs it at once
    (door.home / FILE).write_bytes(b"not a database" * 1_000)
    answer = door.ask("/v1/usage", door.admin)
    assert answer.status_code == 503
    assert answer.get_json()["error"]["code"] == "storage_failed"
    assert answer.headers["Retry-After"]
    assert door.ask(KEYS, door.admin).status_code == 200
    assert door.ask(f"{KEYS}/{made['id']}", door.admin, method="DELETE").status_code == 200
    assert door.chat() == 200


def test_an_agent_without_a_ledger_says_so() -> None:
    client = create_app(services(), HttpSettings()).test_client()
    assert client.get("/v1/usage").status_code == 404
