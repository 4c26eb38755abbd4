"""`edgekit usage`, straight from the file."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from device_agent.access.keyfile import KeyFile
from device_agent.access.keys import KeyWish
from device_agent.ledger.cli import usage_command
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.settings import LedgerSettings
from edgekit.errors import EdgekitError, InvalidRequest, UsageError
from tests.device_agent.ledger.notes import served

DAY_S = 86_400
TABLE = 'currency = "EUR"\n[models."*"]\ninput = 1e6\noutput = 1e6'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def key(home: Path) -> str:
    """The id of a key that asked twice today and once three days ago; somebody without one asked too."""
    found = KeyFile.open(home).add(KeyWish(name="Field app"))[0].id
    book = Ledger.open(home, LedgerSettings())
    book.start()
    now = time.time()
    for at in (now, now, now - 3 * DAY_S):
        book.note(served(found, at=at))
    book.note(served("", at=now, model="big", adapter="law"))
    book.close()
    return found


def run(*arguments: str) -> str:
    result = CliRunner().invoke(usage_command, arguments)
    if isinstance(result.exception, EdgekitError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_json_has_rows_and_totals(key: str) -> None:
    found = as_json("--group", "key")
    assert [(row["key"], row["key_name"], row["requests"]) for row in found["rows"]] == [
        ("", "local", 1),
        (key, "Field app", 3),
    ]
    assert found["totals"] == {
        "requests": 4,
        "input_tokens": 40,
        "cached_tokens": 16,
        "output_tokens": 12,
        "cost": None,
    }


@pytest.mark.usefixtures("key")
def test_days_are_counted_with_today() -> None:
    assert as_json("--days", "3")["totals"]["requests"] == 3
    assert as_json("--days", "4")["totals"]["requests"] == 4


@pytest.mark.usefixtures("key")
def test_the_table_has_a_row_for_each_group_and_one_for_all() -> None:
    lines = run("--group", "key,model").splitlines()
    assert lines[0].split() == ["key", "model", "requests", "input", "cached", "output"]
    assert lines[1].split() == ["local", "big", "1", "10", "4", "3"]
    assert lines[2].split() == ["Field", "app", "tiny", "3", "30", "12", "9"]
    assert lines[3].split() == ["total", "4", "40", "16", "12"]


@pytest.mark.usefixtures("key")
def test_a_price_table_in_the_agents_folder_is_used(home: Path) -> None:
    (home / "prices.toml").write_text(TABLE)
    assert as_json("--group", "model")["totals"]["cost"] == 52
    assert "52.0000 EUR" in run("--group", "model").splitlines()[-1]


@pytest.mark.usefixtures("key")
def test_another_price_table_may_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(TABLE.replace("EUR", "CHF"))
    assert as_json("--prices", str(other))["currency"] == "CHF"
    with pytest.raises(UsageError, match="no price table"):
        run("--prices", str(tmp_path / "none.toml"))


def test_the_price_table_of_the_settings_is_used(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text(TABLE.replace("EUR", "CHF"))
    (home / "config.toml").write_text(f'[usage]\nprices = "{tmp_path / "elsewhere.toml"}"\n')
    assert as_json()["currency"] == "CHF"


@pytest.mark.usefixtures("key")
def test_csv_is_for_programs() -> None:
    rows = list(csv.DictReader(io.StringIO(run("--group", "model", "--csv"), newline="")))
    assert [(row["model"], row["requests"]) for row in rows] == [("big", "1"), ("tiny", "3")]


@pytest.mark.usefixtures("key")
def test_a_plot_is_drawn(tmp_path: Path) -> None:
    run("--plot", str(tmp_path / "usage.svg"))
    drawing = ElementTree.parse(tmp_path / "usage.svg").getroot()
    words = " ".join(text for text in drawing.itertext())
    assert "Tokens a day" in words
    assert "output tokens" in words


@pytest.mark.usefixtures("home")
def test_nothing_served_is_no_error_and_nothing_is_written(tmp_path: Path) -> None:
    assert run() == ""
    assert as_json() == {
        "currency": None,
        "rows": [],
        "totals": {"requests": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "cost": None},
    }
    with pytest.raises(UsageError, match="nothing"):
        run("--plot", str(tmp_path / "usage.svg"))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("home")
def test_an_unknown_column_is_named() -> None:
    with pytest.raises(InvalidRequest, match="hour"):
        run("--group", "day,hour")
