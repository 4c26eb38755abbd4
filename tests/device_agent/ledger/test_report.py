"""Sums by any columns, priced before they are added up, and the table for spreadsheets."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.access.keys import Key
from device_agent.http.services import Served
from device_agent.ledger import prices, report
from device_agent.ledger.database import FILE
from device_agent.ledger.export import COLUMNS, entries, names_of, to_csv
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.report import Column, UsageRow
from device_agent.ledger.settings import LedgerSettings
from edgekit.errors import InvalidRequest
from tests.device_agent.ledger.notes import MIDNIGHT, served

SINCE = "2027-01-01"
PRICES = prices.parse(
    'currency = "EUR"\n[models.tiny]\ninput = 1e6\ncached = 0\noutput = 1e6\n'
    '[models."big:law"]\ninput = 0\noutput = 2e6'
)
DAY = 86_400
NOTES = [
    served("key_a"),
    served("key_a", model="big", adapter="law"),
    served("key_a", at=MIDNIGHT - 3 * DAY),
    served("key_b"),
    served("", model="big", adapter="law", output=10),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path, NOTES)


def written(home: Path, notes: Iterable[Served]) -> Path:
    book = Ledger(home / FILE, LedgerSettings(), clock=lambda: MIDNIGHT + DAY)
    book.start()
    for note in notes:
        book.note(note)
    book.close()
    return book.path


@pytest.mark.parametrize(
    ("group", "found"),
    [
        (("key",), [("", 1, 10), ("key_a", 3, 9), ("key_b", 1, 3)]),
        (("model",), [("big", 2, 13), ("tiny", 3, 9)]),
        (("adapter",), [("", 3, 9), ("law", 2, 13)]),
        (("day",), [("2027-01-13", 1, 3), ("2027-01-16", 4, 19)]),
    ],
)
def test_sums_by_one_column(path: Path, group: tuple[Column, ...], found: list[tuple[str, int, int]]) -> None:
    rows = report.usage(path, since=SINCE, group=group)
    assert [(getattr(row, group[0]), row.requests, row.output) for row in rows] == found


def test_sums_by_no_column_are_the_total(path: Path) -> None:
    assert report.usage(path, since=SINCE, group=()) == [UsageRow(requests=5, input=50, cached=20, output=22)]


def test_only_the_days_and_the_key_that_are_asked_for(path: Path) -> None:
    assert report.usage(path, since="2027-01-16", group=(), key="key_a")[0].requests == 2
    assert report.usage(path, since=SINCE, group=("key",), key="")[0] == UsageRow(
        key="", requests=1, input=10, cached=4, output=10
    )
    assert report.usage(path, since=SINCE, group=(), key="key_'; DROP TABLE daily; --") == []


def test_costs_are_those_of_each_model_and_adapter(path: Path) -> None:
    costs = {row.key: row.cost for row in report.usage(path, since=SINCE, group=("key",), prices=PRICES)}
    assert costs == {"": 20.0, "key_a": 9.0 + 9.0 + 6.0, "key_b": 9.0}


def test_a_sum_with_an_unpriced_part_has_no_cost(path: Path) -> None:
    some = prices.parse('currency = "EUR"\n[models.tiny]\ninput = 1\noutput = 1')
    costs = {row.model: row.cost for row in report.usage(path, since=SINCE, group=("model",), prices=some)}
    assert costs["big"] is None
    assert costs["tiny"] == pytest.approx(39e-6)
    assert report.usage(path, since=SINCE, group=(), prices=some)[0].cost is None


def test_no_file_is_no_usage_and_none_is_made(tmp_path: Path) -> None:
    assert report.usage(tmp_path / FILE, since=SINCE, group=("day",)) == []
    assert report.last_used(tmp_path / FILE) == {}
    assert not list(tmp_path.iterdir())


def test_too_many_rows_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_ROWS", 3)
    with pytest.raises(InvalidRequest) as caught:
        report.usage(path, since=SINCE, group=("day", "key"))
    assert caught.value.param == "group"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("day", ("day",)),
        ("model, day,model", ("day", "model")),
        ("", ()),
        (",", ()),
        ("adapter,key", ("key", "adapter")),
    ],
)
def test_columns_are_read_in_any_order(text: str, columns: tuple[Column, ...]) -> None:
    assert report.parse_group(text) == columns


@pytest.mark.parametrize("text", ["hour", "day;model", "day, requests", "DAY"])
def test_another_column_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        report.parse_group(text)
    assert caught.value.param == "group"


@pytest.mark.parametrize("days", [0, -1, 3_661])
def test_other_numbers_of_days_are_refused(days: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        report.check_days(days)
    assert caught.value.param == "days"


# --- for others -----------------------------------------------------------------------------

KEYS = (Key(id="key_a", name="Field app", digest="0" * 64, scopes=("infer",), created=0),)


def test_an_entry_has_the_columns_that_it_is_grouped_by_and_a_name_for_the_key() -> None:
    row = UsageRow(day="2027-01-16", key="key_a", requests=1, input=10, cached=4, output=3)
    assert entries([row], ("day", "key"), names_of(KEYS)) == [
        {
            "day": "2027-01-16",
            "key": "key_a",
            "key_name": "Field app",
            "requests": 1,
            "input_tokens": 10,
            "cached_tokens": 4,
            "output_tokens": 3,
            "cost": None,
        }
    ]


@pytest.mark.parametrize(
    ("key", "name"), [("", "local"), ("admin", "admin token"), ("key_a", "Field app"), ("key_old", "key_old")]
)
def test_every_key_has_a_name(key: str, name: str) -> None:
    assert entries([UsageRow(key=key)], ("key",), names_of(KEYS))[0]["key_name"] == name


def test_the_table_has_every_column_whatever_it_is_grouped_by() -> None:
    text = to_csv(entries([UsageRow(model="tiny", requests=1, cost=0.5)], ("model",), {}), "EUR")
    assert text.splitlines() == [",".join(COLUMNS), ",,,tiny,,1,0,0,0,0.5,EUR"]


@given(st.text(max_size=20))
def test_no_name_becomes_a_formula_or_another_cell(name: str) -> None:
    row = entries([UsageRow(key="key_a")], ("key",), {"key_a": name})
    read = next(csv.DictReader(io.StringIO(to_csv(row, None), newline="")))
    assert read["key_name"] == (f"'{name}" if name[:1] in {"=", "+", "-", "@", "\t", "\r"} and name else name)
    assert read["requests"] == "0"
