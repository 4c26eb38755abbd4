"""Who may ask which route: every one is closed unless the table opens it."""

from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from device_agent.http import HttpSettings, create_app
from device_agent.http.callers import SCOPES, Access, access, limit_headers
from device_agent.http.services import Caller, Standing
from edgekit.errors import EdgekitError, Overloaded, QuotaExceeded, Unauthorised
from tests.fakes import FakeGate, FakeService, FakeTicket, script, services

USER, ADMIN = Caller(key="key_1", name="user"), Caller(key="admin", scopes=frozenset({"infer", "admin"}))
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
MOST_BODY = {"name": "x"}


def app_of(gate: FakeGate) -> Flask:
    return create_app(services(FakeService(replies=script("a")), gate=gate), HttpSettings(poll_s=0.02))


def strict() -> FakeGate:
    """Keys are required."""
    return FakeGate(keys={"ek-user": USER, "ek-admin": ADMIN}, nobody=None)


def open_here() -> FakeGate:
    return FakeGate(keys={"ek-user": USER, "ek-admin": ADMIN})


RULES = sorted(
    {
        (rule.rule, method)
        for rule in app_of(strict()).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
)


def path_of(rule: str) -> str:
    return "/".join("x" if part.startswith("<") else part for part in rule.split("/"))


def asked(client: FlaskClient, rule: str, method: str, key: str | None = None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = MOST_BODY if method == "POST" else None
    return client.open(path_of(rule), method=method, json=body, headers=headers).status_code


@pytest.mark.parametrize(("rule", "method"), RULES)
def test_each_route_lets_in_whom_the_table_says_and_nobody_else(rule: str, method: str) -> None:
    wanted: Access = access(rule)
    required, local = app_of(strict()).test_client(), app_of(open_here()).test_client()
    refused = {
        "nobody": asked(required, rule, method) == 401,
        "local": asked(local, rule, method) == 401,
        "user": asked(required, rule, method, "ek-user") == 403,
        "admin": asked(required, rule, method, "ek-admin") in {401, 403},
    }
    assert (
        refused
        == {
            "open": {"nobody": False, "local": False, "user": False, "admin": False},
            "open here": {"nobody": False, "local": False, "user": False, "admin": False},
            "infer": {"nobody": True, "local": False, "user": False, "admin": False},
            "admin": {"nobody": True, "local": True, "user": True, "admin": False},
        }[wanted]
    )


def test_what_changes_the_agent_is_for_admins() -> None:
    changing = {rule for rule, method in RULES if method in {"POST", "DELETE", "PUT", "PATCH"} and "edgekit" in rule}
    assert changing
    assert {access(rule) for rule in changing} == {"admin"}


def test_a_route_that_nobody_thought_of_is_for_admins() -> None:
    app = app_of(strict())

    @app.get("/v1/new")
    def new() -> str:
        return "new"

    client = app.test_client()
    assert asked(client, "/v1/new", "GET") == 401
    assert asked(client, "/v1/new", "GET", "ek-user") == 403
    assert asked(client, "/v1/new", "GET", "ek-admin") == 200


def test_the_table_names_no_scope_of_a_route_that_changes_something_ours() -> None:
    assert not [rule for rule, wanted in SCOPES.items() if "keys" in rule or "activate" in rule or wanted == "admin"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer ek-user"},
        {"Authorization": "bearer   ek-user "},
        {"X-Api-Key": "ek-user"},
        {"Authorization": "Basic dXNlcjpwYXNz", "x-api-key": "ek-user"},
        {"Authorization": "Bearer ", "X-Api-Key": " ek-user "},
    ],
)
def test_a_key_comes_as_openais_or_anthropics_clients_send_it(headers: dict[str, str]) -> None:
    assert app_of(strict()).test_client().get("/v1/usage", headers=headers).status_code != 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "ek-user"},
        {"Authorization": "Basic ek-user"},
        {"Authorization": "Bearer ek-user ek-user"},
        {"Authorization": "Bearer ek-wrong", "X-Api-Key": "ek-user"},
        {"Cookie": "key=ek-user"},
        {"X-Api-Key": "x" * 513},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Authorization": "Bearer \xff\xfe"},
    ],
    ids=range(8),
)
def test_anything_else_is_no_key(headers: dict[str, str]) -> None:
    answer = app_of(strict()).test_client().get("/v1/usage", headers=headers)
    assert answer.status_code == 401
    assert answer.get_json()["error"]["type"] == "authentication_error"


def test_a_key_in_the_address_is_no_key() -> None:
    assert app_of(strict()).test_client().get("/v1/usage?api_key=ek-user&key=ek-user").status_code == 401


# --- where from -----------------------------------------------------------------------------


@dataclass
class Ears(FakeGate):
    """Remembers whether the last caller was local."""

    local: bool | None = None

    def identify(self, credential: str | None, *, local: bool) -> Caller:
        self.local = local
        if not local and credential is None:
            raise Unauthorised("This agent needs an API key.")
        return super().identify(credential, local=local)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.1.7", False),
        ("::ffff:192.168.1.7", False),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_only_loopback_is_this_machine(address: str, local: bool) -> None:
    gate = Ears()
    answer = app_of(gate).test_client().get("/v1/usage", environ_base={"REMOTE_ADDR": address})
    assert gate.local is local
    assert (answer.status_code == 401) is not local


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_proxy_on_this_machine_does_not_make_its_callers_local(name: str) -> None:
    gate = Ears()
    app_of(gate).test_client().get("/v1/usage", headers={name: "127.0.0.1"})
    assert gate.local is False


# --- how much -------------------------------------------------------------------------------


def refused(problem: EdgekitError) -> Headers:
    gate = FakeGate(refusal=problem)
    answer = app_of(gate).test_client().post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == problem.http_status
    return answer.headers


@pytest.mark.parametrize(
    ("problem", "wait", "retry"),
    [
        (QuotaExceeded("no", 17), "17", None),
        (QuotaExceeded("no", 60), "60", None),
        (QuotaExceeded("no", 61), "61", "false"),
        (QuotaExceeded("no", 40_000), "40000", "false"),
        (Overloaded("no", 3), "3", None),
    ],
)
def test_who_is_refused_for_now_is_told_when_to_come_again(problem: EdgekitError, wait: str, retry: str | None) -> None:
    headers = refused(problem)
    assert headers["Retry-After"] == wait
    assert headers.get("X-Should-Retry") == retry


def test_a_key_with_quotas_is_told_what_is_left() -> None:
    gate = FakeGate(keys={"ek-user": USER})
    gate.left = Standing(requests=60, requests_left=59, requests_reset_s=0.2, tokens=1_000, tokens_left=7)
    headers = (
        app_of(gate).test_client().post("/v1/chat/completions", json=CHAT, headers={"X-Api-Key": "ek-user"}).headers
    )
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-remaining-tokens"] == "7"


def test_without_quotas_nothing_is_said_of_them() -> None:
    assert limit_headers(Standing()) == {}


def test_a_gate_that_fails_while_it_is_asked_for_limits_does_not_spoil_the_answer() -> None:
    class Gone(FakeGate):
        def standing(self, caller: Caller) -> Standing:
            raise Unauthorised("This API key was removed.")

        def admit(self, caller: Caller) -> FakeTicket:
            return super().admit(caller)

    client = app_of(Gone(keys={"ek-user": USER})).test_client()
    answer = client.post("/v1/chat/completions", json=CHAT, headers={"X-Api-Key": "ek-user"})
    assert answer.status_code == 200
