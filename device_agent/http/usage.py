"""What was served, for those who pay for it: `/v1/usage` and `/v1/usage.csv`. Admins see all keys, others their own."""

from flask import Blueprint, Response, request

from device_agent.http import callers
from device_agent.http.bodies import as_json
from device_agent.http.services import Services, Usage
from device_agent.http.settings import HttpSettings
from device_agent.ledger.export import Entry, entries, names_of, to_csv
from device_agent.ledger.report import COLUMNS, check_days, parse_group
from edgekit.errors import InvalidRequest

_DAYS = "30"
_PARAMETERS = {"days", "group"}


def routes(services: Services, _: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`; empty if nothing is written down."""
    blueprint = Blueprint("usage", __name__)
    if services.usage is None:
        return blueprint
    book = services.usage

    @blueprint.get("/usage")
    def usage() -> Response:
        return as_json({"object": "list", "currency": book.currency, "data": _asked(services, book)})

    @blueprint.get("/usage.csv")
    def usage_csv() -> Response:
        response = Response(to_csv(_asked(services, book), book.currency), mimetype="text/csv")
        response.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
        return response

    return blueprint


def _asked(services: Services, book: Usage) -> list[Entry]:
    """The rows of a query. Raises InvalidRequest."""
    caller = callers.require("infer")
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
