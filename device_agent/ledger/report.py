"""Sums of the ledger, read straight from its file: the agent may run or not."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from device_agent.ledger import database
from device_agent.ledger.prices import Prices
from edgekit.errors import InvalidRequest, StorageFailed

Column = Literal["day", "key", "model", "adapter"]
COLUMNS: tuple[Column, ...] = get_args(Column)
MOST_DAYS = 3_660
MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums of some requests. A column that they are not grouped by is None; "" is no key and no adapter.

    `cached` tokens are a part of `input`. `cost` is None without a price for each of them.
    """

    day: str | None = None
    key: str | None = None
    model: str | None = None
    adapter: str | None = None
    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    cost: float | None = None


def parse_group(text: str) -> tuple[Column, ...]:
    """Columns from "day,model". Raises InvalidRequest for any other name."""
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    if strange := sorted(wanted - set(COLUMNS)):
        raise InvalidRequest(f"group takes {', '.join(COLUMNS)}, and not {strange[0][:50]!r}.", param="group")
    return tuple(column for column in COLUMNS if column in wanted)


def check_days(days: int) -> int:
    """`days` if there may be so many. Raises InvalidRequest."""
    if not 1 <= days <= MOST_DAYS:
        raise InvalidRequest(f"days goes from 1 to {MOST_DAYS:,}.", param="days")
    return days


def usage(
    path: Path, *, since: str, group: tuple[Column, ...], key: str | None = None, prices: Prices | None = None
) -> list[UsageRow]:
    """Sums since a day by the columns of `group`, in their order; of one key only if it is given.

    No file is no usage. Raises InvalidRequest if there are more than MOST_ROWS, and StorageFailed.
    """
    # By model and adapter in any case: each has its price.
    fine = tuple(column for column in COLUMNS if column in group or column in ("model", "adapter"))
    query = _query(fine, one_key=key is not None)
    return _folded(_rows(path, query, [since] if key is None else [since, key]), fine, group, prices)


def last_used(path: Path) -> dict[str, float]:
    """When each key was used last. Raises StorageFailed."""
    return {str(key): float(at) for key, at in _rows(path, "SELECT key, at FROM seen", [])}


def _rows(path: Path, query: str, values: list[str]) -> list[tuple[str | int, ...]]:
    """Of a query; one more than MOST_ROWS at most. None without a file, or from one that has only just been begun."""
    try:
        if not path.exists():
            return []
        with database.open_to_read(path) as connection:
            if not database.version(connection):
                return []
            return connection.execute(query, values).fetchmany(MOST_ROWS + 1)
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(f"{path}: {error}") from error


def _query(columns: tuple[Column, ...], *, one_key: bool) -> str:
    names = ", ".join(columns)  # of COLUMNS, never of a request
    only = "AND key = ?" if one_key else ""
    return (
        f"SELECT {names}, sum(requests), sum(input), sum(cached), sum(output) FROM daily "  # noqa: S608
        f"WHERE day >= ? {only} GROUP BY {names} ORDER BY {names}"
    )


def _folded(
    rows: list[tuple[str | int, ...]], fine: tuple[Column, ...], group: tuple[Column, ...], prices: Prices | None
) -> list[UsageRow]:
    """Finer sums, priced and then added up to the wanted ones."""
    if len(rows) > MOST_ROWS:
        raise InvalidRequest(f"That is more than {MOST_ROWS:,} rows: ask for fewer days or columns.", param="group")
    sums: dict[tuple[str | int, ...], list[float | None]] = {}
    for row in rows:
        named = dict(zip(fine, row, strict=False))
        counts = [int(count) for count in row[len(fine) :]]
        cost = _cost(prices, str(named["model"]), str(named["adapter"]), counts)
        kept = sums.setdefault(tuple(named[column] for column in group), [0, 0, 0, 0, 0.0])
        for at, count in enumerate((*counts, cost)):
            before = kept[at]
            kept[at] = None if before is None or count is None else before + count
    return [_usage_row(group, values, kept) for values, kept in sorted(sums.items())]


def _cost(prices: Prices | None, model: str, adapter: str, counts: list[int]) -> float | None:
    price = None if prices is None else prices.price(model, adapter or None)
    if price is None:
        return None
    return price.of(input_tokens=counts[1], cached_tokens=counts[2], output_tokens=counts[3])


def _usage_row(group: tuple[Column, ...], values: tuple[str | int, ...], sums: list[float | None]) -> UsageRow:
    named = dict(zip(group, (str(value) for value in values), strict=True))
    requests, tokens_in, cached, tokens_out = (int(value or 0) for value in sums[:4])
    return UsageRow(
        day=named.get("day"),
        key=named.get("key"),
        model=named.get("model"),
        adapter=named.get("adapter"),
        requests=requests,
        input=tokens_in,
        cached=cached,
        output=tokens_out,
        cost=None if sums[4] is None else round(sums[4], 9),
    )
