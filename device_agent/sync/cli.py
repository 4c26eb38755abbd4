"""The verbs of a device's updates: enrol, sync, rollback, pin. Light to import.

They work with and without a running agent: one updater is at work at a time (lock.py), and an agent takes over what
another process installed.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import Size, print_json

if TYPE_CHECKING:
    from device_agent.sync.passes import Passes
    from device_agent.sync.records import Change, LinkSettings, Outcome, Progress
    from edgekit.release.provisioning import Provisioning

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_CHANNEL = click.option("--channel", metavar="NAME", help="Default: the only one that this device follows.")
_LABEL = click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="What to call it, for rollouts.")
_STOPPED = 130


# --- enrol ----------------------------------------------------------------------------------------


@click.command(
    "enrol",
    epilog="""\b
Examples:
  edgekit enrol provisioning.json --label site=lyon
  edgekit enrol --show > this-device.json""",
)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--id", "device_id", metavar="ID", help="Default: a random one, which it keeps.")
@_LABEL
@click.option("--show", is_flag=True, help="Print what the build machine needs to know its reports: a secret is in it.")
@_JSON
def enrol_command(
    file: Path | None, device_id: str | None, labels: tuple[str, ...], *, show: bool, as_json: bool
) -> None:
    """Tell this device whom to trust: FILE is what `edgekit repo provision` wrote.

    Enrolled again, it keeps its id; what it may have forgotten of what it trusted begins anew with the file's facts.
    """
    from device_agent.sync.identity import read_identity
    from device_agent.sync.lock import updating
    from device_agent.sync.settings import labels_of
    from edgekit.errors import NotEnrolled, UsageError
    from edgekit.home import home

    if show == (file is not None) or (show and (device_id is not None or labels)):
        raise UsageError("say `edgekit enrol FILE`, or `edgekit enrol --show` alone.")
    if file is None:
        identity = read_identity(home())
        if identity is None:
            raise NotEnrolled(f"{home()} was never told what to trust")
        click.echo(identity.enrolment().to_bytes().decode(), nl=False)
        return
    told = _provisioning(file)
    with updating(home(), "enrol", now=time.time()):
        _enrol(home(), told, device_id, labels_of(labels), as_json=as_json)


def _provisioning(file: Path) -> "Provisioning":
    """Raises UsageError."""
    from edgekit.errors import UsageError
    from edgekit.release import provisioning

    try:
        with file.open("rb") as stream:
            raw = stream.read(provisioning.MAX_PROVISIONING_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    return provisioning.parse(raw, path=str(file))


def _enrol(
    home: Path, told: "Provisioning", device_id: str | None, labels: dict[str, str], *, as_json: bool = False
) -> None:
    from device_agent.sync.enrolling import enrolled
    from device_agent.sync.transport.address import shown

    identity = enrolled(home, told, device_id=device_id, labels=labels, clock=time.time)
    facts = {
        "device": identity.device.id,
        "labels": dict(identity.device.labels),
        "repositories": [shown(repository) for repository in told.repositories],
        "channels": list(told.channels),
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"{click.style('enrolled', fg='green', bold=True)}  {identity.device.id}", err=True)
    for name in ("labels", "repositories", "channels"):
        fact = facts[name]
        words = [f"{key}={value}" for key, value in fact.items()] if isinstance(fact, dict) else fact
        click.echo(f"{name:12}  {', '.join(map(str, words)) or 'none'}", err=True)


# --- sync -----------------------------------------------------------------------------------------


@click.command(
    "sync",
    epilog="""\b
Examples:
  edgekit sync --once                      look, fetch, try, and serve what is new
  edgekit sync --once --repo /media/usb    the same from a stick
  edgekit sync --check                     only tell what would happen""",
)
@click.option("--once", is_flag=True, help="End after one look; without it, go on until Ctrl-C.")
@click.option("--check", is_flag=True, help="Tell what is offered and what it would take; install nothing.")
@click.option("--repo", "repositories", metavar="URL|PATH", multiple=True, help="Instead of those that it was told.")
@click.option("--channel", "channels", metavar="NAME", multiple=True, help="Instead of those that it follows.")
@click.option("--max-bytes-per-s", "most", type=Size(), help="Leave the rest of the line to others.")
@click.option(
    "--reset-trust", is_flag=True, help="Forget what was trusted since the device was enrolled, and begin anew."
)
@_JSON
def sync_command(
    repositories: tuple[str, ...],
    channels: tuple[str, ...],
    most: int | None,
    *,
    once: bool,
    check: bool,
    reset_trust: bool,
    as_json: bool,
) -> int:
    """Look for updates of the models, fetch and install them. Needs no running agent; one that runs takes them over.

    Exit code 0 only if nothing was refused and nothing is missing; Ctrl-C leaves what was fetched for the next time. A
    device that was never enrolled is, by `--once --repo`, with the keys that it finds there: compare the fingerprint.
    """
    from device_agent.sync.enrolling import trust_on_first_use
    from device_agent.sync.identity import read_identity
    from device_agent.sync.lock import updating
    from edgekit.home import home

    run = _Run(home(), repositories, channels, most, as_json=as_json)
    with _stopping(run.stop):
        if read_identity(home()) is None and repositories and once:
            with updating(home(), "enrol", now=time.time()):
                told = trust_on_first_use(repositories, channels, stop=run.stop, clock=time.time)
                _warn_of(told.fingerprint, repositories)
                _enrol(home(), told.provisioning, None, {})
        passes = run.passes()
        if reset_trust:
            with updating(home(), "sync --reset-trust", now=time.time()):
                passes.rooms.trust.reset()
            click.echo("What was trusted since this device was enrolled is forgotten.", err=True)
        if check:
            return run.check(passes)
        return run.once(passes) if once else run.forever(passes)


def _warn_of(fingerprint: str, repositories: tuple[str, ...]) -> None:
    from device_agent.sync.transport.address import shown

    click.echo(
        f"{click.style('trusting the keys found there, for the first time:', fg='yellow', bold=True)} "
        f"{shown(repositories[0])}\n  root  sha256 {fingerprint}\n"
        "  Compare it with what the repository's owner says: `edgekit repo status`. From now on only these keys count\n"
        "  here, and those that they name.",
        err=True,
    )


class _Run:
    """What `edgekit sync` was told, and what it does with it."""

    def __init__(
        self, home: Path, repositories: tuple[str, ...], channels: tuple[str, ...], most: int | None, *, as_json: bool
    ) -> None:
        self.stop = threading.Event()
        self._home = home
        self._repositories = repositories
        self._channels = channels
        self._most = most
        self._as_json = as_json

    def passes(self) -> "Passes":
        """What this device can do. Raises NotEnrolled, UsageError."""
        from device_agent.sync.settings import channels_of

        def told(settings: "LinkSettings") -> "LinkSettings":
            return dataclasses.replace(
                settings,
                repositories=self._repositories or settings.repositories,
                channels=channels_of(self._channels) or settings.channels,
                most_bytes_per_s=self._most or settings.most_bytes_per_s,
            )

        return _passes(self._home, told)

    def check(self, passes: "Passes") -> int:
        """Tell what is offered."""
        from device_agent.sync import showing

        offers = passes.check(self.stop)
        if self._as_json:
            print_json({"device": passes.rooms.device.id, "offers": [dataclasses.asdict(found) for found in offers]})
        for found in () if self._as_json else offers:
            click.echo(showing.offer(found))
        return 0

    def once(self, passes: "Passes") -> int:
        """One update."""
        from device_agent.sync import showing

        outcomes = self._updated(passes, anytime=True)
        return _STOPPED if self.stop.is_set() else showing.exit_code(outcomes)

    def forever(self, passes: "Passes") -> int:
        """One after the other."""
        from device_agent.sync.schedule import Rhythm
        from edgekit.errors import Busy

        settings = passes.rooms.settings
        rhythm = Rhythm(settings.interval_s, settings.windows)
        while not self.stop.is_set():
            try:
                fine = not any(found.exit_code for found in self._updated(passes, anytime=False))
            except Busy as error:
                click.echo(str(error), err=True)
                fine = False
            rhythm.looked(time.time(), fine=fine)
            self.stop.wait(rhythm.wait_s(time.time()))
        return _STOPPED

    def _updated(self, passes: "Passes", *, anytime: bool) -> "tuple[Outcome, ...]":
        from device_agent.sync import showing

        bar = _Bar()
        outcomes = passes.update(bar.tell, self.stop, anytime=anytime)
        bar.end()
        if self._as_json:
            print_json(
                {"device": passes.rooms.device.id, "outcomes": [dataclasses.asdict(found) for found in outcomes]}
            )
        for found in () if self._as_json else outcomes:
            colour = {"installed": "green", "current": "green", "held": "yellow"}.get(found.ending, "red")
            click.echo(click.style(showing.outcome(found), fg=colour))
        for hint in showing.hints(outcomes):
            click.echo(f"{click.style('hint:', fg='yellow')}  {hint}", err=True)
        return outcomes


class _Bar:
    """Draws progress on standard error: one line that changes on a terminal, else a line at each tenth."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._said: object = None
        self._width = 0
        self._at = 0.0

    def tell(self, progress: "Progress") -> None:
        """As the link tells."""
        from device_agent.sync.showing import doing

        line = doing(progress)
        tenth = 10 * progress.done_bytes // max(1, progress.total_bytes)
        said = (progress.phase, progress.release, tenth)
        now = time.monotonic()
        if not line or (said == self._said and (not self._moving or now - self._at < 0.1)):
            return
        changed = self._said is not None and said[:2] != self._said[:2]  # type: ignore[index]
        self._said, self._at = said, now
        if not self._moving:
            click.echo(line, err=True)
            return
        click.echo(("\n" if changed else "\r") + line.ljust(self._width), nl=False, err=True)
        self._width = len(line)

    def end(self) -> None:
        """Nothing more comes."""
        if self._moving and self._said is not None:
            click.echo(err=True)


@contextlib.contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop` inside of the block; Ctrl-C a second time ends at once."""

    def handle(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- back, and staying ------------------------------------------------------------------------


@click.command("rollback", epilog="\b\nExample:\n  edgekit rollback --channel stable")
@_CHANNEL
@_JSON
def rollback_command(channel: str | None, *, as_json: bool) -> None:
    """Go back to the release before, at once and without any network. It is kept for that.

    The one that it leaves is not taken again until the channel names another; `edgekit pin` stays for longer than that.
    """
    _change("rollback", channel, None, as_json=as_json)


@click.command("pin", epilog="\b\nExamples:\n  edgekit pin\n  edgekit pin my-model-1.0\n  edgekit pin --off")
@click.argument("release", metavar="[RELEASE]", required=False)
@click.option("--off", is_flag=True, help="Follow the channel again.")
@_CHANNEL
@_JSON
def pin_command(release: str | None, channel: str | None, *, off: bool, as_json: bool) -> None:
    """Stay on RELEASE (default: the one that is active), whatever the channel says."""
    from edgekit.errors import UsageError

    if off and release is not None:
        raise UsageError("say `edgekit pin RELEASE`, or `edgekit pin --off`.")

    _change("unpin" if off else "pin", channel, release, as_json=as_json)


def _change(does: "Change", channel: str | None, release: str | None, *, as_json: bool) -> None:
    """Do something to a channel's line, and tell."""
    from device_agent.sync.records import Wish
    from edgekit.home import home

    outcome = _passes(home()).change(Wish(does=does, channel=channel, release=release))
    if as_json:
        print_json({"channel": outcome.channel, "release": outcome.release, "done": does})
        return
    told = {
        "rollback": f"{outcome.release} is active again",
        "pin": f"{outcome.release} stays, whatever the channel says",
        "unpin": "this device follows it again",
    }
    click.echo(f"{outcome.channel}: {told[does]}")


def _passes(home: Path, told: "Callable[[LinkSettings], LinkSettings]" = lambda settings: settings) -> "Passes":
    """What this device can do, by its settings, as changed by what the command line `told`.

    Raises NotEnrolled, UsageError.
    """
    from device_agent.config import store_of
    from device_agent.sync.composing import compose_alone
    from device_agent.sync.passes import Passes
    from device_agent.sync.settings import link_settings
    from edgekit.settings import CONFIG_FILE, read_settings

    found = read_settings(home / CONFIG_FILE, os.environ)
    models = store_of(found, home)
    rooms = compose_alone(home, told(link_settings(found.sync)), models=models, clock=time.time)
    return Passes(rooms, clock=time.time)
