"""What was served, for those who pay for it: `/v1/usage` and `/v1/usage.csv`. Admins see all keys, others their own."""

from flask import Blueprint, Response, request
from msgspec import UNSET, Struct, UnsetType

from device_agent.http.bodies import as_json
from device_agent.http.callers import require
from device_agent.http.openapi import Query, Route
from device_agent.http.services import Services, Usage
from device_agent.http.settings import HttpSettings
from device_agent.ledger.export import Entry, entries, names_of, to_csv
from device_agent.ledger.report import COLUMNS, MOST_DAYS, check_days, parse_group
from edgekit.errors import InvalidRequest, RouteError


class UsageEntry(Struct, kw_only=True):
    """Sums of some requests; columns that they are not grouped by are left out. `cached_tokens` are input tokens too.

    `key` is a key's id, "" for those who need none. `cost` is null without a price.
    """

    day: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    key_name: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    adapter: str | UnsetType = UNSET
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float | None


class UsageList(Struct, kw_only=True):
    """The sums that were asked for. `texts_kept`: prompts and answers are written down beside them."""

    object: str = "list"
    currency: str | None
    texts_kept: bool
    data: list[UsageEntry]


_QUERY = (
    Query(
        name="days",
        summary="How many days, today being one of them (UTC).",
        schema={"type": "integer", "minimum": 1, "maximum": MOST_DAYS, "default": 30},
    ),
    Query(
        name="group",
        summary=f"Columns, with commas between them: any of {', '.join(COLUMNS)}. Default: all.",
        schema={"type": "string"},
    ),
)
ROUTES = (
    Route(
        method="get",
        path="/v1/usage",
        summary="Add up what was served: an admin sees all keys, another key its own.",
        scope="infer",
        reply=UsageList,
        query=_QUERY,
    ),
    Route(
        method="get",
        path="/v1/usage.csv",
        summary="The same sums as a table.",
        scope="infer",
        reply="text/csv",
        query=_QUERY,
    ),
)
_DAYS = "30"
_PARAMETERS = {"days", "group"}


def routes(services: Services, _: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("usage", __name__)

    @blueprint.get("/usage")
    def usage() -> Response:
        book = _book(services)
        found = {"object": "list", "currency": book.currency, "texts_kept": book.keeps_texts}
        return as_json(found | {"data": _asked(services)})

    @blueprint.get("/usage.csv")
    def usage_csv() -> Response:
        response = Response(to_csv(_asked(services), _book(services).currency), mimetype="text/csv")
        response.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
        return response

    return blueprint


def _book(services: Services) -> Usage:
    if services.usage is None:
        raise RouteError("This agent keeps no ledger.")
    return services.usage


def _asked(services: Services) -> list[Entry]:
    """The rows of a query. Raises InvalidRequest."""
    caller, book = require("infer"), _book(services)
    if strange := sorted(set(request.args) - _PARAMETERS):
        raise InvalidRequest(f"There is no parameter {strange[0][:50]!r} here.", param=strange[0][:50])
    group = parse_group(request.args.get("group", ",".join(COLUMNS)))
    rows = book.usage(days=_days(), group=group, key=None if "admin" in caller.scopes else caller.key)
    names = names_of(() if services.keys is None else services.keys.all())
    return entries(rows, group, names)


def _days() -> int:
    text = request.args.get("days", _DAYS)
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InvalidRequest("days must be a whole number.", param="days")
    return check_days(int(text))
