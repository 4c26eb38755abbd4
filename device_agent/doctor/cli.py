"""`edgekit doctor`."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from edgekit.cli import print_json
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from device_agent.doctor.records import Ask, Finding

_MOST_BYTES = 64 << 20
_PATIENCE_S = 300.0
"""A slow board may take as long for an answer; nothing here waits for more than one."""

_MARKS = {"green": "ok", "amber": "!!", "red": "bad"}
_COLOURS = {"green": "green", "amber": "yellow", "red": "red"}


@click.command(
    "doctor", epilog="\b\nExamples:\n  edgekit doctor\n  edgekit doctor my-model --url http://localhost:8080"
)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--url", help="A running agent, to be asked what client libraries ask.")
@click.option("--key", envvar="EDGEKIT_KEY", help="A key for it, if it needs one. [env: EDGEKIT_KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def doctor_command(folder: Path | None, url: str | None, key: str | None, *, as_json: bool) -> int:
    """Check this machine, the bundle (or bundles) in DIR, and a running agent.

    Each check is ok, could be better (!!), or bad, with what to do about it. Exit code 1 if any is bad.
    """
    from device_agent.doctor import updates
    from device_agent.doctor.agent import examine
    from device_agent.doctor.machine import bundles_in, findings, probe
    from edgekit.home import home
    from edgekit.settings import CONFIG_FILE, read_settings

    store = home() / "models"
    folders = bundles_in(folder or store) if folder or os.path.isdir(store) else []  # noqa: PTH112 - it never raises
    now = time.time()
    named = len(read_settings(home() / CONFIG_FILE, os.environ).sync.repositories)
    found = findings(probe(home(), folders, now=now))
    found += updates.findings(updates.probe(home(), repositories=named, now=now))
    if not as_json:
        _print(found)
    if url is not None:
        for finding in examine(_asking(url, key)):
            found.append(finding)
            if not as_json:
                _print([finding])
    if as_json:
        print_json([{"check": f.check, "status": f.status, "detail": f.detail, "hint": f.hint} for f in found])
    elif sys.stdout.isatty():
        counts = {status: sum(finding.status == status for finding in found) for status in _MARKS}
        click.echo(f"\n{counts['green']} ok, {counts['amber']} could be better, {counts['red']} bad")
    return int(any(finding.status == "red" for finding in found))


def _print(found: "Sequence[Finding]") -> None:
    for finding in found:
        mark = click.style(f"{_MARKS[finding.status]:4}", fg=_COLOURS[finding.status], bold=True)
        click.echo(f"{mark}{finding.check:20} {finding.detail}")
        if finding.hint:
            click.echo(f"    {'':20} {click.style(finding.hint, fg=_COLOURS[finding.status])}")


def _asking(url: str, key: str | None) -> "Ask":
    """Requests to the agent at `url` by the standard library, without any proxy. Raises UsageError for no URL."""
    from device_agent.doctor.records import Reply

    base = url.rstrip("/").removesuffix("/v1")
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise UsageError(f"{url!r} is no address such as http://localhost:8080.")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(base + path, data, {**sent, **(headers or {})}, method=method)  # noqa: S310 - http or https, see above
        try:
            with opener.open(request, timeout=_PATIENCE_S) as answer:
                return _reply(answer.status, dict(answer.headers), answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, dict(error.headers), error.read(_MOST_BYTES))

    def _reply(status: int, found: Mapping[str, str], content: bytes) -> Reply:
        return Reply(status, {name.lower(): value for name, value in found.items()}, content)

    return ask
