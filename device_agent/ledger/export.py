"""Sums of the ledger for others: one shape for JSON and CSV. Pure."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from device_agent.access.keys import ADMIN_ID, Key
from device_agent.ledger.report import Column, UsageRow

COLUMNS = (
    *("day", "key", "key_name", "model", "adapter"),
    *("requests", "input_tokens", "cached_tokens", "output_tokens", "cost", "currency"),
)
LOCAL_NAME = "local"
"""The name of those who need no key."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Entry = dict[str, str | int | float | None]


def names_of(keys: Iterable[Key]) -> dict[str, str]:
    """Names by id, for every key that requests may have come with."""
    return {"": LOCAL_NAME, ADMIN_ID: "admin token"} | {key.id: key.name for key in keys}


def entries(rows: Iterable[UsageRow], group: Sequence[Column], names: Mapping[str, str]) -> list[Entry]:
    """Rows as the API gives them: columns that they are not grouped by are missing."""
    return [_entry(row, group, names) for row in rows]


def to_csv(rows: Iterable[Entry], currency: str | None) -> str:
    """A table with all COLUMNS, as RFC 4180 has it. What a spreadsheet would run as a formula becomes text."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        cells = {name: "" if value is None else value for name, value in row.items()} | {"currency": currency or ""}
        writer.writerow({name: _cell(value) for name, value in cells.items()})
    return out.getvalue()


def _entry(row: UsageRow, group: Sequence[Column], names: Mapping[str, str]) -> Entry:
    found: Entry = {}
    for column in group:
        found[column] = getattr(row, column)
        if column == "key":
            found["key_name"] = names.get(row.key or "", row.key)
    return found | {
        "requests": row.requests,
        "input_tokens": row.input,
        "cached_tokens": row.cached,
        "output_tokens": row.output,
        "cost": row.cost,
    }


def _cell(value: str | float) -> str | float:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
