"""What a build machine does to its disk, as scenarios for the explorer: the commands of `edgekit`, each cut off.

`Desk.look` holds what is found against what a device may see: its client, with the memory of what was published
before, takes every state as it is, and all that is offered is there and whole. Then the same command is given again.
"""

import contextlib
import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from device_agent.sync.transport.folder import FolderSource
from device_agent.sync.trust.trust import Trust
from edgekit.release.channel import MAX_CHANNEL_BYTES, Channel
from edgekit.release.channel import parse as parse_channel
from edgekit.release.names import channel_target
from edgekit.release.provisioning import FORMAT, Provisioning
from export.publish import requests
from export.publish.bundle_cli import bundle_command
from export.publish.channel_cli import channel_command
from export.publish.cli import publish_command
from export.publish.keys import Keyring
from export.publish.keys_cli import keys_command
from export.publish.metadata import ROLES, authority
from export.publish.repo_cli import repo_command
from export.publish.repository import Repository
from export.publish.verify import FolderPlace, verify
from tests.crashes.disk import Marks
from tests.crashes.explorer import Scenario
from tests.crashes.recorder import Recorder
from tests.device_agent.bundles import COLD

COMMANDS: Mapping[str, click.Command] = {
    "bundle": bundle_command,
    "channel": channel_command,
    "keys": keys_command,
    "publish": publish_command,
    "repo": repo_command,
}
CHANNEL = "stable"


@dataclass
class Desk:
    """Where somebody publishes: `home` has the repository, its keys and a stick; bundles and devices are elsewhere.

    Devices are folders of trusted metadata, as they were before the act, by the place that they look at.
    """

    folder: Path
    root: bytes = b""
    devices: dict[str, Path] = field(default_factory=dict)

    def bundle(self, version: str) -> Path:
        """A small adapter with a few bytes of its own: it is published as any release is."""
        folder = self.folder / f"cold-{version}"
        if folder.exists():
            return folder
        shutil.copytree(COLD, folder)
        data = folder / "adapter.onnx_adapter"
        raw = bytearray(data.read_bytes())
        raw[-100] ^= int(version)
        data.write_bytes(raw)
        manifest = folder / "adapter.json"
        facts = json.loads(manifest.read_bytes()) | {"version": version}
        facts["files"][0]["sha256"] = hashlib.sha256(raw).hexdigest()
        manifest.write_text(json.dumps(facts))
        return folder

    def run(self, home: Path, *words: str) -> None:
        """One command of `edgekit`, as a person gives it. Words that begin with @ are below `home`; # is a bundle."""
        spelt = [_spelt(word, home, self) for word in words]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            COMMANDS[words[0]].main(spelt[1:], prog_name="edgekit", standalone_mode=False)

    def remember(self, home: Path) -> None:
        """What devices know once they have seen what is published now, here or on a stick."""
        if not (home / "repo").is_dir():
            return
        self.root = Repository.open(home / "repo").root(1)
        for place in ("repo", "stick"):
            if (home / place).is_dir():
                self.devices[place] = self.folder / f"knows-{place}"
                self.trust(self.devices[place]).refresh(FolderSource(home / place))

    def look(self, home: Path, place: str) -> Channel | None:
        """What a device is offered there, if anything was published; and nothing that it may ask for is missing."""
        if not (home / place / "metadata" / "timestamp.json").is_file():
            return None
        known = self.folder / "device"
        shutil.rmtree(known, ignore_errors=True)
        if place in self.devices:
            shutil.copytree(self.devices[place], known)
        source = FolderSource(home / place)
        trust = self.trust(known)
        view = trust.refresh(source)
        assert view.fresh
        if place == "repo":  # a stick has what some devices need, and not all that is listed
            verify(FolderPlace(home / place), self.root, now=time.time())
        if CHANNEL not in view.channels:
            return None
        return parse_channel(trust.target(channel_target(CHANNEL), source, limit=MAX_CHANNEL_BYTES))

    def can_sign(self, home: Path) -> None:
        """No key by which the repository is signed is lost."""
        if not (home / "repo").is_dir():
            return
        state = Repository.open(home / "repo").state()
        keyring = Keyring.open([home / "vault" / "signing" / "keys"], lambda _what: None)
        for role in ROLES:
            for key in authority(role, state.root.signed, state.targets.signed).keys:
                keyring.signer(key)

    def trust(self, folder: Path) -> Trust:
        """What a device trusts that keeps it in `folder`."""
        provisioning = Provisioning(format=FORMAT, root=self.root.decode())
        return Trust(folder, provisioning, clock=time.time, built=0.0)


def _spelt(word: str, home: Path, desk: Desk) -> str:
    if word.startswith("#"):
        return str(desk.bundle(word[1:]))
    return str(home / word[1:]) if word.startswith("@") else word


# --- what is done -------------------------------------------------------------------------------

Command = tuple[str, ...]
KEYS: Command = ("--keys", "@vault/signing/keys")
INIT: Command = ("repo", "init", "@repo", "--no-passphrase", *KEYS)
STICK: Command = ("bundle", "create", "--repo", "@repo", "-o", "@stick")


def publish(version: str, *more: str) -> Command:
    return ("publish", f"#{version}", "--repo", "@repo", "--channel", CHANNEL, *KEYS, *more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """`before` is done in peace, `act` is cut off. `shows` says what a device sees once it is done.

    `again`, if not the act itself, is what somebody does who finds it cut off.
    """

    before: tuple[Command, ...] = (INIT, publish("1"))
    act: tuple[Command, ...]
    again: tuple[Command, ...] = ()
    shows: Callable[[Channel | None], bool]
    place: str = "repo"


def offers(version: str) -> Callable[[Channel | None], bool]:
    return lambda channel: channel is not None and channel.release == f"cold-{version}" and not channel.pause


def paused(channel: Channel | None) -> bool:
    return channel is not None and channel.pause


def nothing_or_one(channel: Channel | None) -> bool:
    return channel is None or offers("1")(channel)


def _rotate(holder: str) -> Act:
    return Act(act=(("keys", "rotate", "@repo", holder, *KEYS),), shows=offers("1"))


_ELSEWHERE: tuple[Command, ...] = (
    publish("2", "--unsigned", "@request"),
    ("repo", "sign", "@request", "--yes", *KEYS),
    publish("2", "--signed", "@request"),
)

ACTS: Mapping[str, Act] = {
    "d10 init": Act(before=(), act=(INIT,), again=(INIT, publish("1")), shows=nothing_or_one),
    "d10 first publish": Act(before=(INIT,), act=(publish("1"),), shows=offers("1")),
    "d10 publish by differences": Act(act=(publish("2"),), shows=offers("2")),
    "d10 publish, signed elsewhere": Act(act=_ELSEWHERE, again=(publish("2"),), shows=offers("2")),
    "d10 refresh": Act(act=(("repo", "refresh", "@repo", *KEYS),), shows=offers("1")),
    "d10 channel set": Act(act=(("channel", "set", CHANNEL, "--repo", "@repo", "--pause", *KEYS),), shows=paused),
    **{f"d10 rotate {holder}": _rotate(holder) for holder in ("root", "releases", "rollout", "timestamp")},
    "d10 prune": Act(
        before=(INIT, publish("1"), publish("2"), publish("3")),
        act=(("repo", "prune", "@repo", *KEYS),),
        shows=offers("3"),
    ),
    "d10 first stick": Act(act=(STICK,), shows=offers("1"), place="stick"),
    "d10 stick": Act(before=(INIT, publish("1"), STICK, publish("2")), act=(STICK,), shows=offers("2"), place="stick"),
}


def scenario(desk: Desk, act: Act) -> Scenario:
    """An act as the explorer wants it."""

    def prepare(home: Path) -> None:
        for words in act.before:
            desk.run(home, *words)
        desk.remember(home)

    def do(home: Path, recorder: Recorder) -> None:
        for words in act.act:
            desk.run(home, *words)
            if "@request" in words:
                recorder.mark(f"request {_signatures(home)}")
        recorder.mark("done")

    def converge(home: Path) -> None:
        _again(desk, act, home)
        _check(desk, act, home, ("done",))
        desk.run(home, *publish("4"))
        _check(desk, act, home, ())
        assert offers("4")(desk.look(home, "repo")), "nothing can be published"

    return Scenario(
        prepare=prepare,
        act=do,
        recover=None,
        resume=lambda home: _again(desk, act, home),
        check=lambda home, marks: _check(desk, act, home, marks),
        converge=converge,
        observe=lambda _: ("done",),
    )


def _again(desk: Desk, act: Act, home: Path) -> None:
    """What somebody does who finds it cut off."""
    for words in act.again or act.act:
        if words != INIT or not (home / "repo").exists():
            desk.run(home, *words)


def _check(desk: Desk, act: Act, home: Path, marks: Marks) -> None:
    if not desk.devices:
        desk.root = _root_of(home)  # of a repository that may have been made anew
    desk.can_sign(home)
    asked = [int(mark.partition(" ")[2]) for mark in marks if mark.startswith("request")]
    assert not asked or _signatures(home) >= max(asked), "the signing request is lost, or its signature"
    for place in {act.place, *desk.devices}:
        seen = desk.look(home, place)
        assert place != act.place or "done" not in marks or act.shows(seen), f"{seen} is shown, though it was done"
    assert (home / "repo").is_dir() or "done" not in marks, "the repository is gone"


def _signatures(home: Path) -> int:
    return len(requests.releases_of(requests.read(home / "request")).signatures)


def _root_of(home: Path) -> bytes:
    """Where trust in a repository begins; nothing if there is none. Raises PublishError if there is a damaged one."""
    return Repository.open(home / "repo").root(1) if (home / "repo").is_dir() else b""
