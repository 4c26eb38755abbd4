"""What happens around an answer: who asks, which model is held, what is written down."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from device_agent.http import create_app
from device_agent.http.services import Caller
from edgekit.errors import EdgekitError, InvalidRequest, Overloaded, QuotaExceeded
from tests.device_agent.http.conftest import SETTINGS
from tests.fakes import FakeBook, FakeEncoder, FakeGate, FakeModels, FakeService, script, services

MESSAGES = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": [65]},
    "/apply-template": {"messages": MESSAGES},
}
EVERY = pytest.mark.parametrize("path", BODIES)
COUNTED = pytest.mark.parametrize("path", list(BODIES)[:3])
BOTH = pytest.mark.parametrize("path", list(BODIES)[:2])
INFER, ADMIN = Caller(key="1", name="app"), Caller(key="2", name="boss", scopes=frozenset({"admin"}))


class House:
    """An app with everything that is behind it."""

    def __init__(self) -> None:
        self.service = FakeService(replies=script("a"), adapters=("french",), context_tokens=4000)
        self.models = FakeModels(self.service, FakeEncoder())
        self.gate, self.book = FakeGate(), FakeBook()
        made = services(models=self.models, gate=self.gate, book=self.book)
        self.client: FlaskClient = create_app(made, SETTINGS).test_client()

    def post(self, path: str, *, key: str | None = None, **fields: Any) -> Any:
        model = "encoder" if path == "/v1/embeddings" else "tiny"
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        answer = self.client.post(path, json={"model": model} | BODIES[path] | fields, headers=headers)
        answer.get_data()
        return answer


@pytest.fixture
def house() -> Iterator[House]:
    """Nothing of it is held when the test has ended."""
    made = House()
    yield made
    assert (made.models.held, made.gate.admitted) == ([], [])


def problem_of(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.get_json()["error"]["param"]


# --- who asks -------------------------------------------------------------------------------


@EVERY
def test_a_key_is_asked_for_where_one_is_needed(house: House, path: str) -> None:
    house.gate.nobody, house.gate.keys = None, {"right": INFER}
    refused = house.post(path)
    assert (refused.status_code, refused.get_json()["error"]["type"]) == (401, "authentication_error")
    assert house.post(path, key="wrong").status_code == 401
    assert house.post(path, key="right").status_code == 200


@EVERY
def test_a_key_for_something_else_is_not_enough(house: House, path: str) -> None:
    house.gate.keys = {"boss": ADMIN}
    answer = house.post(path, key="boss")
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (403, "permission_error")


@EVERY
def test_nobody_is_heard_before_he_is_known(house: House, path: str) -> None:
    """A stranger learns nothing of what would be wrong with his request."""
    house.gate.nobody = None
    assert house.post(path, nonsense=1).status_code == 401
    assert house.client.post(path, data=b"{", content_type="text/plain").status_code == 401


@pytest.mark.parametrize("header", ["Bearer right", "bearer right", "Bearer  right "])
def test_the_scheme_of_a_key_is_read_leniently(house: House, header: str) -> None:
    house.gate.nobody, house.gate.keys = None, {"right": INFER}
    body = {"content": "a"}
    assert house.client.post("/tokenize", json=body, headers={"Authorization": header}).status_code == 200


def test_a_key_may_come_in_anthropics_header(house: House) -> None:
    house.gate.nobody, house.gate.keys = None, {"right": INFER}
    assert house.client.post("/tokenize", json={"content": "a"}, headers={"X-Api-Key": "right"}).status_code == 200


@pytest.mark.parametrize("header", ["Basic cmlnaHQ=", "right", "Bearer", "Bearer " + "x" * 600, ""])
def test_what_is_no_key_is_as_good_as_none(house: House, header: str) -> None:
    house.gate.nobody, house.gate.keys = None, {"right": INFER}
    assert house.client.post("/tokenize", json={"content": "a"}, headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("path", ["/", "/health", "/web/app.js", "/openapi.json"])
def test_open_routes_need_no_key(house: House, path: str) -> None:
    house.gate.nobody = None
    assert house.client.get(path).status_code == 200


@COUNTED
def test_a_used_up_quota_is_told_before_the_model_is_touched(house: House, path: str) -> None:
    house.gate.refusal = QuotaExceeded("no more today", 60)
    assert house.post(path).status_code == 429
    assert house.book.pages == []


# --- which model ----------------------------------------------------------------------------


@EVERY
def test_an_unknown_model_is_not_found(house: House, path: str) -> None:
    answer = house.post(path, model="gpt-4")
    assert problem_of(answer) == (404, "model")
    assert answer.get_json()["error"]["code"] == "model_not_found"


@EVERY
def test_a_model_without_room_is_a_503(house: House, path: str) -> None:
    house.models.refusal = Overloaded("no memory", 5)
    answer = house.post(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


@BOTH
def test_an_encoder_writes_nothing(house: House, path: str) -> None:
    assert problem_of(house.post(path, model="encoder")) == (400, "model")


def test_a_generating_model_makes_no_vectors(house: House) -> None:
    assert problem_of(house.post("/v1/embeddings", model="tiny")) == (400, "model")


@COUNTED
def test_the_reply_names_the_model_as_the_request_did(house: House, path: str) -> None:
    base = "encoder" if path == "/v1/embeddings" else "tiny"
    assert house.post(path, model=f"{base}:french").get_json()["model"] == f"{base}:french"


@BOTH
def test_who_names_no_model_learns_which_one_answered(house: House, path: str) -> None:
    assert house.post(path, model=None).get_json()["model"] == "tiny"


@BOTH
@pytest.mark.parametrize(("model", "adapter"), [("tiny", None), ("tiny:french", "french")])
def test_an_adapter_of_the_name_is_computed_with(house: House, path: str, model: str, adapter: str | None) -> None:
    house.post(path, model=model)
    assert house.service.generations[0].adapter == adapter
    assert house.book.pages[0].adapter == adapter


STEPS: dict[str, Any] = {"edgekit": {"strategy": "step-by-step"}}


@pytest.mark.parametrize(
    ("model", "fields", "phases"),
    [
        ("tiny", {}, 1),
        ("tiny@direct", {}, 1),
        ("tiny@step-by-step", {}, 2),
        ("tiny", STEPS, 2),
        ("tiny@step-by-step", STEPS, 2),
    ],
)
def test_a_strategy_is_named_by_the_model_or_by_the_request(house: House, model: str, fields: Any, phases: int) -> None:
    assert house.post("/v1/chat/completions", model=model, **fields).status_code == 200
    assert len(house.service.generations) == phases


def test_two_strategies_contradict_each_other(house: House) -> None:
    answer = house.post("/v1/chat/completions", model="tiny@direct", **STEPS)
    assert problem_of(answer) == (400, "edgekit.strategy")
    assert house.service.generations == []


def test_an_unknown_strategy_is_refused_by_its_name(house: House) -> None:
    answer = house.post("/v1/chat/completions", edgekit={"strategy": "guess"})
    assert problem_of(answer) == (400, "edgekit.strategy")


def test_a_plain_completion_has_no_strategy(house: House) -> None:
    assert problem_of(house.post("/v1/completions", model="tiny@direct")) == (400, "model")


# --- what is written down -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_is_written_down_once(house: House, path: str, stream: bool) -> None:
    house.post(path, stream=stream)
    (page,) = house.book.pages
    assert page.dialect == ("chat" if "chat" in path else "completions")
    assert (page.model, page.finish, page.sha256, page.caller) == ("tiny", "stop", "5" * 64, Caller())
    assert (page.input_tokens, page.cached_tokens, page.output_tokens) == (5, 3, 2)
    assert page.first_token_s is not None
    assert page.total_s >= page.first_token_s
    assert (page.prompt, page.answer) == ("", "")


@BOTH
@pytest.mark.parametrize(
    "refusal", [InvalidRequest("no", param="x"), Overloaded("full")], ids=lambda value: type(value).__name__
)
def test_a_request_that_the_model_refuses_is_written_down_as_an_error(
    house: House, path: str, refusal: EdgekitError
) -> None:
    house.service.refusal = refusal
    assert house.post(path).status_code == refusal.http_status
    (page,) = house.book.pages
    assert (page.finish, page.output_tokens, page.first_token_s) == ("error", 0, None)


@BOTH
def test_a_stream_that_nobody_reads_is_written_down_as_cancelled(house: House, path: str) -> None:
    """A generator that was never begun runs no `finally`."""
    body = {"model": "tiny", "stream": True} | BODIES[path]
    answer = house.client.post(path, json=body, buffered=False)
    assert house.models.held == ["tiny"]
    answer.close()
    assert [page.finish for page in house.book.pages] == ["cancelled"]
    assert house.service.answers.get(timeout=1).cancelled.is_set()


@BOTH
def test_a_bad_body_is_no_visit(house: House, path: str) -> None:
    assert house.post(path, nonsense=1).status_code == 400
    assert house.book.pages == []
