"""Keys over HTTP, for admins: `/v1/edgekit/keys`. Secrets are told once, and never listed."""

import msgspec
from flask import Blueprint, Response

from device_agent.access.keys import MOST_NAME_CHARS, Key, KeyWish, Quotas, Scope
from device_agent.http import callers
from device_agent.http.bodies import as_json, json_body
from device_agent.http.services import Services
from device_agent.http.settings import HttpSettings
from edgekit.errors import InvalidRequest, StorageFailed

Entry = dict[str, object]


class _Wish(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The body of a request for a new key. Times are Unix seconds."""

    name: str
    scopes: tuple[Scope, ...] = ("infer",)
    tokens_per_day: int | None = None
    requests_per_minute: int | None = None
    concurrent: int | None = None
    expires_at: int | None = None


def routes(services: Services, _: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`; empty if there are no keys to give out."""
    blueprint = Blueprint("keys", __name__)
    if services.keys is None:
        return blueprint
    keys = services.keys

    @blueprint.get("/edgekit/keys")
    def listed() -> Response:
        callers.require("admin")
        used = _last_used(services)
        return as_json({"object": "list", "data": [entry(key, used.get(key.id)) for key in keys.all()]})

    @blueprint.post("/edgekit/keys")
    def added() -> Response:
        callers.require("admin")
        key, secret = keys.add(parse(json_body()))
        return as_json(entry(key, None) | {"key": secret}, 201)

    @blueprint.delete("/edgekit/keys/<key_id>")
    def revoked(key_id: str) -> Response:
        callers.require("admin")
        key = keys.revoke(key_id)
        return as_json(entry(key, _last_used(services).get(key.id)))

    return blueprint


def parse(body: bytes) -> KeyWish:
    """What a body asks for. Raises InvalidRequest, naming the parameter."""
    try:
        wish = msgspec.json.decode(body, type=_Wish)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"This asks for no key: {error}", param=_param(str(error))) from error
    quotas = Quotas(
        tokens_per_day=wish.tokens_per_day, requests_per_minute=wish.requests_per_minute, concurrent=wish.concurrent
    )
    return KeyWish(name=wish.name, scopes=wish.scopes, quotas=quotas, expires_at=wish.expires_at)


def entry(key: Key, last_used: float | None) -> Entry:
    """A key as the API shows it."""
    return {
        "id": key.id,
        "object": "edgekit.key",
        "name": key.name,
        "scopes": list(key.scopes),
        "tokens_per_day": key.quotas.tokens_per_day,
        "requests_per_minute": key.quotas.requests_per_minute,
        "concurrent": key.quotas.concurrent,
        "created": key.created,
        "expires_at": key.expires_at,
        "last_used": None if last_used is None else int(last_used),
        "revoked": key.revoked_at is not None,
    }


def _last_used(services: Services) -> dict[str, float]:
    """Missing rather than an error where the ledger cannot be read: keys must be revocable also then."""
    if services.usage is None:
        return {}
    try:
        return dict(services.usage.last_used())
    except StorageFailed:
        return {}


def _param(problem: str) -> str | None:
    """The field that msgspec's message names, such as "... - at `$.scopes[0]`" or "... unknown field `x`"."""
    if "`$." in problem:
        return problem.rpartition("`$.")[2].rstrip("`").split("[")[0].split(".")[0][:MOST_NAME_CHARS]
    for words in ("unknown field `", "required field `"):
        if words in problem:
            return problem.rpartition(words)[2].partition("`")[0][:MOST_NAME_CHARS]
    return None
