"""/v1/edgekit/sync: what a device says of its updates, and what operators wish."""

from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from device_agent.http import HttpSettings, create_app
from device_agent.http.services import Caller
from edgekit.errors import Busy, EdgekitError, NotEnrolled, Refused
from tests.fakes import FakeGate, FakeSync, services

SYNC = "/v1/edgekit/sync"
WISHES = ("check", "update", "rollback", "pin", "unpin")
ADMIN = {"Authorization": "Bearer boss"}


@pytest.fixture
def sync() -> FakeSync:
    return FakeSync()


@pytest.fixture
def client(sync: FakeSync) -> FlaskClient:
    gate = FakeGate(
        keys={"boss": Caller(key="b", scopes=frozenset({"admin"})), "app": Caller(key="a", scopes=frozenset({"infer"}))}
    )
    return create_app(services(gate=gate, sync=sync), HttpSettings()).test_client()


def test_the_state_is_told(client: FlaskClient) -> None:
    found = client.get(SYNC, headers=ADMIN)
    assert found.status_code == 200
    assert found.json is not None
    assert (found.json["object"], found.json["device"], found.json["enrolled"]) == ("edgekit.sync", "device-1", True)
    assert found.json["state"]["phase"] == "idle"


@pytest.mark.parametrize(
    ("wish", "body", "arrived"),
    [
        ("check", None, ("check",)),
        ("update", None, ("update",)),
        ("rollback", {}, ("rollback", None)),
        ("rollback", {"channel": "stable"}, ("rollback", "stable")),
        ("pin", {}, ("pin", None, None)),
        ("pin", {"channel": "stable", "release": "tiny-1.0"}, ("pin", "stable", "tiny-1.0")),
        ("unpin", {"channel": None}, ("unpin", None)),
    ],
)
def test_a_wish_arrives_and_is_answered_with_the_state(
    client: FlaskClient, sync: FakeSync, wish: str, body: dict[str, str] | None, arrived: tuple[str | None, ...]
) -> None:
    answer = client.post(f"{SYNC}/{wish}", headers=ADMIN, json=body)
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["device"] == "device-1"
    assert sync.wishes == [arrived]


@pytest.mark.parametrize(("secret", "status"), [("", 401), ("app", 403)])
def test_updates_are_for_admins_even_on_loopback(client: FlaskClient, sync: FakeSync, secret: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    assert client.get(SYNC, headers=headers).status_code == status
    for wish in WISHES:
        assert client.post(f"{SYNC}/{wish}", headers=headers, json={}).status_code == status
    assert sync.wishes == []


@pytest.mark.parametrize(
    "problem", [Busy("process 7 does `sync`"), NotEnrolled("nobody told it"), Refused("there is none")], ids=repr
)
def test_what_cannot_be_done_now_is_409_with_a_sentence(
    client: FlaskClient, sync: FakeSync, problem: EdgekitError
) -> None:
    sync.refusal = problem
    for wish in WISHES:
        answer = client.post(f"{SYNC}/{wish}", headers=ADMIN, json={})
        assert answer.status_code == 409
        assert answer.json is not None
        assert answer.json["error"]["message"].startswith(str(problem))


@pytest.mark.parametrize(
    "body", [{"channel": "Stable"}, {"channel": "../x"}, {"release": "a/b"}, {"release": ""}, {"other": 1}], ids=repr
)
def test_names_that_cannot_be_are_refused(client: FlaskClient, sync: FakeSync, body: dict[str, object]) -> None:
    assert client.post(f"{SYNC}/pin", headers=ADMIN, json=body).status_code == 400
    assert sync.wishes == []


def test_an_agent_without_updates_has_no_such_route() -> None:
    gate = FakeGate(keys={"boss": Caller(key="b", scopes=frozenset({"admin"}))})
    client = create_app(replace(services(gate=gate), sync=None), HttpSettings()).test_client()
    assert client.get(SYNC, headers=ADMIN).status_code == 404
    assert client.post(f"{SYNC}/update", headers=ADMIN).status_code == 404
