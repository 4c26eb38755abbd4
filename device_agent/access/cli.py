"""The verb `keys`: it works on the file of keys, and a running agent sees what changed at its next request."""

import datetime
import re
import time

import click

from device_agent.access.keyfile import ADMIN_TOKEN, KeyFile
from device_agent.access.keys import SCOPES, Key, KeyWish, Quotas, Scope
from device_agent.ledger import report
from device_agent.ledger.database import FILE
from edgekit.cli import print_json
from edgekit.errors import StorageFailed, UsageError
from edgekit.home import home

_UNITS_S = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


class Duration(click.ParamType[int]):
    """A time from now: 12h, 30d, 8w. In seconds."""

    name = "TIME"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As click calls it."""
        match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", str(value))
        if match is None:
            self.fail(f"{value!r} is not a time such as 12h, 30d or 8w", param, ctx)
        return int(match[1]) * _UNITS_S[match[2]]


@click.command("keys", epilog='\b\nExample:\n  edgekit keys add "Field app" --tokens-per-day 200000 --expires 30d')
@click.argument("action", metavar="[list|add|revoke]", type=click.Choice(("list", "add", "revoke")), default="list")
@click.argument("what", metavar="[NAME|ID]", required=False)
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="What it opens. Default: infer.")
@click.option("--tokens-per-day", type=click.IntRange(min=0), help="Tokens read and written of a UTC day.")
@click.option("--requests-per-minute", type=click.IntRange(min=0))
@click.option("--concurrent", type=click.IntRange(min=0), help="Requests at a time.")
@click.option("--expires", type=Duration(), help="Opens nothing after 12h, 30d, 8w ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def keys_command(
    action: str,
    what: str | None,
    scopes: tuple[Scope, ...],
    tokens_per_day: int | None,
    requests_per_minute: int | None,
    concurrent: int | None,
    expires: int | None,
    *,
    as_json: bool,
) -> None:
    """List, add or revoke the keys that programs send to this machine's agent, which need not run.

    A new key's secret is shown once. The file admin-token in EDGEKIT_HOME is a key of its own, with every scope.
    """
    quotas = Quotas(tokens_per_day=tokens_per_day, requests_per_minute=requests_per_minute, concurrent=concurrent)
    asked = bool(scopes or expires is not None or quotas != Quotas())
    if (action == "list") != (what is None) or (asked and action != "add"):
        raise UsageError("say `edgekit keys`, `edgekit keys add NAME` with its limits, or `edgekit keys revoke ID`.")
    file = KeyFile.open(home())
    if action == "add":
        expires_at = None if expires is None else int(time.time()) + expires
        wish = KeyWish(name=str(what), scopes=scopes or ("infer",), quotas=quotas, expires_at=expires_at)
        _added(*file.add(wish), as_json=as_json)
    elif action == "revoke":
        key = file.revoke(str(what))
        print_json(_facts(key, None)) if as_json else click.echo(f"{key.name} ({key.id}) opens nothing any more")
    else:
        _listed(file.all(), as_json=as_json)


def _added(key: Key, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(key, None) | {"key": secret})
        return
    click.echo(f"{click.style(secret, bold=True)}")
    click.echo(f"That is the key of {key.name} ({key.id}). It is not kept anywhere: copy it now.", err=True)


def _listed(keys: tuple[Key, ...], *, as_json: bool) -> None:
    try:
        used = report.last_used(home() / FILE)
    except StorageFailed as error:
        click.echo(f"when keys were used last is not known: {error}", err=True)
        used = {}
    if as_json:
        print_json({"keys": [_facts(key, used.get(key.id)) for key in keys], "admin_token": str(home() / ADMIN_TOKEN)})
        return
    now = time.time()
    for key in keys:
        state = "revoked" if key.revoked_at is not None else "expired" if key.refusal(now) else "open"
        at = used.get(key.id)
        click.echo(
            f"{key.id}  {click.style(state, fg='green' if state == 'open' else 'red'):8}  "
            f"{click.style(key.name, bold=True)}  {'+'.join(key.scopes)}  {_limits(key)}  "
            f"last used {'never' if at is None else _day(at)}"
        )
    click.echo(f"{len(keys)} keys, and the admin token in {home() / ADMIN_TOKEN}", err=True)


def _limits(key: Key) -> str:
    quotas = key.quotas
    told = {
        "tokens/day": quotas.tokens_per_day,
        "requests/min": quotas.requests_per_minute,
        "at a time": quotas.concurrent,
    }
    words = [f"{limit:,} {name}" for name, limit in told.items() if limit is not None]
    if key.expires_at is not None:
        words.append(f"until {_day(key.expires_at)}")
    return ", ".join(words) or "no limits"


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _facts(key: Key, last_used: float | None) -> dict[str, object]:
    """As the API shows it."""
    return {
        "id": key.id,
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
