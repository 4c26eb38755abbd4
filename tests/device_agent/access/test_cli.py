"""`edgekit keys` on a machine whose agent may run or not."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from device_agent.access.cli import keys_command
from device_agent.access.keyfile import ADMIN_TOKEN, KEYS, KeyFile
from device_agent.ledger.database import FILE
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.settings import LedgerSettings
from edgekit.errors import EdgekitError, InvalidRequest, RouteError, UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str) -> tuple[str, str]:
    """Standard output and error. Raises what the command raises."""
    result = CliRunner().invoke(keys_command, arguments)
    if isinstance(result.exception, EdgekitError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def as_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json")[0])


def test_a_new_keys_secret_alone_is_on_standard_output(home: Path) -> None:
    out, told = run("add", "Field app")
    secret = out.strip()
    found = KeyFile.open(home).find(secret)
    assert found is not None
    assert (found.name, found.scopes) == ("Field app", ("infer",))
    assert found.id in told
    assert secret not in (home / KEYS).read_text()


@pytest.mark.usefixtures("home")
def test_limits_and_scopes_are_those_that_were_asked_for() -> None:
    limits = ("--tokens-per-day", "5", "--requests-per-minute", "6", "--concurrent", "7", "--expires", "2d")
    made = as_json("add", "boss", "--scope", "admin", "--scope", "infer", *limits)
    assert (made["tokens_per_day"], made["requests_per_minute"], made["concurrent"]) == (5, 6, 7)
    assert made["scopes"] == ["infer", "admin"]
    assert made["expires_at"] - made["created"] in {2 * 86_400 - 1, 2 * 86_400, 2 * 86_400 + 1}
    (listed,) = as_json()["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}


def test_a_list_for_people_shows_names_and_states_and_no_secret(home: Path) -> None:
    secret = run("add", "Field app", "--tokens-per-day", "200000")[0].strip()
    gone = as_json("add", "old laptop")["id"]
    run("revoke", gone)
    out, told = run()
    first, second = out.splitlines()
    assert ("Field app" in first, "open" in first, "200,000 tokens/day" in first) == (True, True, True)
    assert ("old laptop" in second, "revoked" in second) == (True, True)
    assert secret not in out
    assert str(home / ADMIN_TOKEN) in told


def test_revoking_is_seen_by_a_running_agent(home: Path) -> None:
    made = as_json("add", "app")
    agent = KeyFile.open(home)
    assert as_json("revoke", made["id"])["revoked"] is True
    found = agent.find(made["key"])
    assert found is not None
    assert found.revoked_at is not None


def test_when_a_key_was_used_last_comes_from_the_ledger(home: Path) -> None:
    made = as_json("add", "app")
    book = Ledger.open(home, LedgerSettings())
    book.start()
    book.seen(made["id"], 1_800_000_000.0)
    book.close()
    assert as_json()["keys"][0]["last_used"] == 1_800_000_000
    assert "last used 2027-01-15 08:00 UTC" in run()[0]


def test_a_broken_ledger_hides_no_keys(home: Path) -> None:
    run("add", "app")
    (home / FILE).write_bytes(b"not a database" * 1_000)
    out, told = run()
    assert "app" in out
    assert "not known" in told


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("add",), UsageError),
        (("revoke",), UsageError),
        (("list", "name"), UsageError),
        (("list", "--scope", "admin"), UsageError),
        (("revoke", "key_1", "--concurrent", "1"), UsageError),
        (("revoke", "key_1"), RouteError),
        (("revoke", "admin"), InvalidRequest),
        (("add", "a\tb"), InvalidRequest),
    ],
)
def test_a_wrong_use_is_an_error(arguments: tuple[str, ...], kind: type[EdgekitError]) -> None:
    with pytest.raises(kind):
        run(*arguments)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("time", ["0d", "30", "d", "-1d", "30m", "1.5d", "9999999d"])
def test_a_time_that_is_none_is_wrong_usage(time: str) -> None:
    result = CliRunner().invoke(keys_command, ["add", "a", "--expires", time])
    assert result.exit_code == 2
    assert "12h, 30d or 8w" in result.stderr
