"""Keys over HTTP, for admins: `/v1/edgekit/keys`. Secrets are told once, and never listed."""

from collections.abc import Mapping

from flask import Blueprint, Response
from msgspec import Struct, structs

from device_agent.access.keys import Key, Scope
from device_agent.http.bodies import as_json, json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.schema.form import read
from device_agent.http.schema.keys import KEY, wish_of
from device_agent.http.services import Keys, Services
from device_agent.http.settings import HttpSettings
from edgekit.errors import RouteError, StorageFailed


class KeyReply(Struct, kw_only=True):
    """A key, but for its secret. Times are Unix seconds; `last_used` is known by the hour."""

    object: str = "edgekit.key"
    id: str
    name: str
    scopes: list[Scope]
    tokens_per_day: int | None
    requests_per_minute: int | None
    concurrent: int | None
    created: int
    expires_at: int | None
    last_used: int | None
    revoked: bool


class NewKeyReply(KeyReply, kw_only=True):
    """A key that was just made. Nobody can ask for `key`, its secret, again."""

    key: str


class KeyList(Struct, kw_only=True):
    """All keys but the admin token, revoked ones too."""

    object: str = "list"
    data: list[KeyReply]


_PATH = "/v1/edgekit/keys"
ROUTES = (
    Route(method="get", path=_PATH, summary="List the keys.", scope="admin", reply=KeyList),
    Route(
        method="post",
        path=_PATH,
        summary="Make a key; its secret is told this once.",
        scope="admin",
        request=KEY,
        reply=NewKeyReply,
    ),
    Route(method="delete", path=f"{_PATH}/{{id}}", summary="Revoke a key.", scope="admin", reply=KeyReply),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("keys", __name__)

    @blueprint.get("/edgekit/keys")
    def listed() -> Response:
        require("admin")
        used = _last_used(services)
        return as_json(KeyList(data=[_reply(key, used) for key in _keys(services).all()]))

    @blueprint.post("/edgekit/keys")
    def added() -> Response:
        require("admin")
        wish = wish_of(read(json_body(), KEY, lenient=settings.lenient))
        key, secret = _keys(services).add(wish)
        return as_json(NewKeyReply(**structs.asdict(_reply(key, {})), key=secret))

    @blueprint.delete("/edgekit/keys/<id>")
    def revoked(id: str) -> Response:  # noqa: A002 - the document's name for it
        require("admin")
        key = _keys(services).revoke(id)
        return as_json(_reply(key, _last_used(services)))

    return blueprint


def _keys(services: Services) -> Keys:
    if services.keys is None:
        raise RouteError("This agent has no keys.")
    return services.keys


def _reply(key: Key, used: Mapping[str, float]) -> KeyReply:
    at = used.get(key.id)
    return KeyReply(
        id=key.id,
        name=key.name,
        scopes=list(key.scopes),
        tokens_per_day=key.quotas.tokens_per_day,
        requests_per_minute=key.quotas.requests_per_minute,
        concurrent=key.quotas.concurrent,
        created=key.created,
        expires_at=key.expires_at,
        last_used=None if at is None else int(at),
        revoked=key.revoked_at is not None,
    )


def _last_used(services: Services) -> Mapping[str, float]:
    """Nothing rather than an error where the ledger cannot be read: keys must be revocable also then."""
    try:
        return {} if services.usage is None else services.usage.last_used()
    except StorageFailed:
        return {}
