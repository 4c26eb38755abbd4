"""An agent that answers wrongly is found out; what it should answer is in tests/clients, where a real one runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from device_agent.doctor.agent import examine
from device_agent.doctor.records import Finding, Reply

CARD = {
    "id": "tiny",
    "object": "model",
    "created": 1,
    "owned_by": "edgekit",
    "meta": {"kind": "generate", "n_ctx": 256},
}
Table = dict[tuple[str, str], tuple[int, Any]]
GOOD: Table = {
    ("GET", "/v1/models"): (200, {"object": "list", "data": [CARD]}),
    ("GET", "/v1/models/tiny"): (200, CARD),
    ("GET", "/v1/models/no-such-model"): (
        404,
        {"error": {"message": "no", "type": "not_found_error", "param": "model", "code": "model_not_found"}},
    ),
    ("GET", "/health"): (200, {"status": "ok"}),
}


@dataclass(frozen=True)
class Canned:
    """Implements records.Ask: answers of a table, and a 500 for what is not in it."""

    table: Table

    def __call__(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        status, value = self.table.get((method, path), (500, {"error": {}}))
        if headers:
            status, value = self.table.get(("cross", path), (403, {}))
        return Reply(status, {"content-type": "application/json"}, json.dumps(value).encode())


class Nobody:
    """Implements records.Ask: there is none."""

    def __call__(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        raise ConnectionRefusedError("connection refused")


def examined(changed: Table) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(Canned(GOOD | changed))}


def test_what_is_right_is_green_and_what_fails_does_not_end_the_examination() -> None:
    found = examined({})
    assert {found[check].status for check in ("models", "health", "one model", "other sites", "admin")} == {"green"}
    assert {found[check].status for check in ("chat", "tools", "messages")} == {"red"}
    assert found["embeddings"].status == "green"  # there is no such model


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({("GET", "/health"): (503, {"error": {}})}, "health"),
        ({("GET", "/health"): (200, {"status": "loading"})}, "health"),
        ({("GET", "/v1/models/tiny"): (200, CARD | {"id": "other"})}, "one model"),
        ({("GET", "/v1/models/no-such-model"): (200, CARD)}, "one model"),
        ({("GET", "/v1/models/no-such-model"): (404, {"detail": "no"})}, "one model"),
        ({("cross", "/v1/models"): (200, {})}, "other sites"),
        ({("cross", "/v1/edgekit/models/tiny/unload"): (200, {})}, "admin"),
    ],
)
def test_what_a_client_would_trip_over_is_red(changed: Table, check: str) -> None:
    finding = examined(changed)[check]
    assert finding.status == "red"
    assert finding.detail
    assert finding.hint


def test_an_agent_that_wants_a_key_says_so_and_nothing_else_is_asked() -> None:
    (finding,) = examined({("GET", "/v1/models"): (401, {"error": {}})}).values()
    assert finding.status == "red"
    assert "--key" in finding.detail


def test_nobody_at_that_address_is_one_finding() -> None:
    (finding,) = examine(Nobody())
    assert (finding.check, finding.status) == ("models", "red")
    assert "address" in finding.hint
