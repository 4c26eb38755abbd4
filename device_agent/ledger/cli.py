"""The verb `usage`: sums of the ledger, straight from its file, whether the agent runs or not."""

import os
import time
from datetime import date
from pathlib import Path

import click

from device_agent.access.keyfile import KEYS
from device_agent.access.keys import KeyRing
from device_agent.ledger import prices as price_table
from device_agent.ledger.database import FILE
from device_agent.ledger.days import first_day
from device_agent.ledger.export import Entry, entries, names_of, to_csv
from device_agent.ledger.prices import Prices
from device_agent.ledger.report import COLUMNS, MOST_DAYS, UsageRow, parse_group, usage
from edgekit.cli import print_json
from edgekit.errors import UsageError
from edgekit.files import write_durably
from edgekit.home import home
from edgekit.settings import CONFIG_FILE, read_settings

_EPILOG = """
\b
Example:
  edgekit usage --days 7 --group day,key
\b
A price table, per million tokens:
  currency = "EUR"
  [models."*"]
  input = 0.10
  cached = 0.02
  output = 0.40
"""
_COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "cost")
_TITLES = {"input_tokens": "input", "cached_tokens": "cached", "output_tokens": "output", "key_name": "key"}


@click.command("usage", epilog=_EPILOG)
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=30, show_default=True, help="Today is one of them.")
@click.option("--group", default="day,key,model", show_default=True, help=f"Any of {', '.join(COLUMNS)}.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    help="A price table. Default: the settings' one, or prices.toml in EDGEKIT_HOME.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draw tokens and requests by day.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def usage_command(
    days: int, group: str, prices: Path | None, plot: Path | None, *, as_csv: bool, as_json: bool
) -> None:
    """Show what this machine's agent has served: requests and tokens by day, key, model and adapter."""
    columns = parse_group(group)
    path, since = home() / FILE, first_day(time.time(), days)
    table = _prices(prices)
    currency = None if table is None else table.currency
    rows = usage(path, since=since, group=columns, prices=table)
    found = entries(rows, columns, _names())
    if plot is not None:
        write_durably(plot, _drawn(usage(path, since=since, group=("day",)), since).encode())
        click.echo(f"drawn: {plot}", err=True)
    if as_json:
        print_json({"currency": currency, "rows": found, "totals": _totals(found)})
    elif as_csv:
        click.echo(to_csv(found, currency), nl=False)
    else:
        _print(found, currency)


def _prices(given: Path | None) -> Prices | None:
    """The table that is given, or that the agent's settings name, or the one of its folder if there is one."""
    if given is None and (named := read_settings(home() / CONFIG_FILE, os.environ).usage.prices) is not None:
        given = Path(named)
    found = price_table.load(given or home() / price_table.FILE)
    if found is None and given is not None:
        raise UsageError(f"there is no price table {given}.")
    return found


def _names() -> dict[str, str]:
    """Keys' names; ids do where the file of keys cannot be read."""
    try:
        return names_of(KeyRing.parse((home() / KEYS).read_bytes()).keys)
    except (OSError, ValueError):
        return names_of(())


def _totals(rows: list[Entry]) -> Entry:
    """Sums of the counts; the cost is None if one of them is."""
    found: Entry = {}
    for name in _COUNTS:
        values = [row[name] for row in rows]
        found[name] = None if None in values else sum(value for value in values if isinstance(value, int | float))
    return found if rows else found | {"cost": None}


def _print(rows: list[Entry], currency: str | None) -> None:
    if not rows:
        click.echo("nothing was served in these days", err=True)
        return
    names = [name for name in rows[0] if name != "key" and (name != "cost" or currency)]
    lines = [[_cell(name, row[name], currency) for name in names] for row in rows]
    totals = _totals(rows)
    last = [_cell(name, totals[name], currency) if name in totals else "" for name in names]
    last[0] = last[0] or "total"
    head = [_TITLES.get(name, name) for name in names]
    widths = [max(map(len, column)) for column in zip(head, *lines, last, strict=True)]
    sides = [name in _COUNTS for name in names]

    def line(cells: list[str]) -> str:
        return "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, sides, strict=True)
        ).rstrip()

    click.echo(click.style(line(head), bold=True))
    for cells in lines:
        click.echo(line(cells))
    click.echo(click.style(line(last), bold=True))


def _cell(name: str, value: object, currency: str | None) -> str:
    if name == "cost":
        return "-" if value is None else f"{value:.4f} {currency}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _drawn(rows: list[UsageRow], since: str) -> str:
    """Two panels: tokens and requests of each day. Raises UsageError if there were none."""
    from edgekit.plots import Curve, Panel, panels

    first = date.fromisoformat(since)
    days = {(date.fromisoformat(row.day) - first).days: row for row in rows if row.day is not None}
    if not days:
        raise UsageError("nothing was served in these days, so there is nothing to draw.")
    span = range(max(days) + 1)
    label = f"days since {since} (UTC)"

    def curve(name: str, counts: dict[int, int]) -> Curve:
        return Curve(name, tuple((float(day), float(counts.get(day, 0))) for day in span))

    tokens = (
        curve("input tokens", {day: row.input for day, row in days.items()}),
        curve("cached input tokens", {day: row.cached for day, row in days.items()}),
        curve("output tokens", {day: row.output for day, row in days.items()}),
    )
    requests = (curve("requests", {day: row.requests for day, row in days.items()}),)
    try:
        return panels("Usage", (Panel("Tokens a day", label, tokens), Panel("Requests a day", label, requests)))
    except ValueError as error:
        raise UsageError(f"there is nothing to draw: {error}.") from error
