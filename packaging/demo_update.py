"""The demo's second act: a repository is made, a device follows it, and four versions show what the sync link is for.

    version 1   is installed by a device that has nothing
    version 2   is picked up by the running agent, passes its trial, and answers
    version 3   is signed, but answers nonsense: its trial refuses it
    version 4   was changed on the way: its signature refuses it

Like the first act it drives only public things: the `edgekit` command, files, and HTTP on this machine.
"""

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import demo_agent

LOOK_S = 2
"""How often the demo's agent looks for updates, instead of once an hour."""

WAIT_S = 300.0
POLL_S = 0.5
_FLIP = 0xFF


class Act:
    """The stage: a repository, a device's home, and where they are told of."""

    def __init__(self, folder: Path, model: Path, first: Path, screen: TextIO) -> None:
        self.folder, self.model, self.first, self.screen = folder, model, first, screen
        self.repository = folder / "repository"
        self.server = folder / "server"
        self.home = folder / "device"
        self.log = folder / "agent.log"
        self._passphrase = secrets.token_urlsafe()

    @contextlib.contextmanager
    def played(self, port: int | None) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """All of it: the agent, which goes on serving inside of the block, and what happened. Raises DemoError."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        first = self._first()
        variables = {"EDGEKIT_HOME": str(self.home), "EDGEKIT_SYNC_INTERVAL_S": str(LOOK_S)}
        with demo_agent.agent(None, port, variables=variables, log=self.log) as (process, url):
            first |= self._ask(url, first["release"])
            second = self._second(url)
            third = self._third(url, second["release"])
            fourth = self._fourth(url, second["release"])
            page = f"{url.rstrip('/')}/#/updates"
            self._say(f"Page      {page} shows all this, to whom has the token in {self.home / 'admin-token'}")
            self._say(f"Files     {self.folder}")
            yield process, {"versions": [first, second, third, fourth], "url": url}

    # --- the versions -------------------------------------------------------------------------------

    def _first(self) -> dict[str, Any]:
        self._edgekit("repo", "init", str(self.repository), "--root-keys", "3")
        published = self._publish(self.first)
        provisioning = self.folder / "provisioning.json"
        self._edgekit("repo", "provision", str(self.repository), "--url", str(self.server), "-o", str(provisioning))
        self._edgekit("enrol", str(provisioning))
        self._say("Device    enrolled: it trusts the repository's root key, and nobody else")
        self._edgekit("sync", "--once")
        self._say(f"Version 1 is installed: {published['release']}\n")
        return published

    def _second(self, url: str) -> dict[str, Any]:
        second = self.first.with_name(f"{self.first.name}-v2")
        if not second.is_dir() or demo_agent.edgekit("verify", str(second)):
            shutil.rmtree(second, ignore_errors=True)
            self._say("Version 2 is the same model with 8-bit weights: exporting")
            named = json.loads((self.first / "bundle.json").read_text(encoding="utf-8"))["name"]
            options = ("--quant", "int8", "--name", named, "--version", "2")
            if demo_agent.edgekit("export", str(self.model), "-o", str(second), *options):
                raise demo_agent.DemoError("the export of version 2 failed")
        published = self._publish(second)
        release = published["release"]
        self._await(url, "version 2 to serve", lambda state: _active(state) == release)
        self._say(f"Version 2 was picked up by the running agent, and passed its trial: {release}")
        return published | self._ask(url, release)

    def _third(self, url: str, serving: str) -> dict[str, Any]:
        """Weights of version 1, every fourth byte of them turned round; hashed and signed all the same."""
        third = self._copy("3")
        data = third / "model.onnx.data"
        weights = bytearray(data.read_bytes())
        weights[::4] = bytes(value ^ _FLIP for value in weights[::4])
        data.write_bytes(weights)
        manifest = third / "bundle.json"
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        for entry in facts["files"]:
            if entry["path"] == data.name:
                entry["sha256"] = hashlib.sha256(weights).hexdigest()
        manifest.write_text(json.dumps(facts), encoding="utf-8")
        published = self._publish(third)
        shutil.rmtree(third)
        state = self._await(url, "version 3 to be refused", lambda state: _refusal(state, published["release"]))
        reason = _refusal(state, published["release"])
        self._say(f"Version 3 was refused by its trial, though it is signed: {reason}")
        return published | {"refused": reason} | self._ask(url, serving)

    def _fourth(self, url: str, serving: str) -> dict[str, Any]:
        """The way to it was changed: the newest timestamp names another version than its owner signed."""
        fourth = self._copy("4")
        published = self._publish(fourth, tampered=True)
        shutil.rmtree(fourth)
        state = self._await(url, "version 4 to be refused", _distrust)
        reason = _distrust(state)
        self._say(f"Version 4 was refused by its signature, for somebody changed it on the way: {reason}")
        return published | {"refused": reason} | self._ask(url, serving)

    # --- what is done -------------------------------------------------------------------------------

    def _copy(self, version: str) -> Path:
        """Version 1 under another number."""
        copy = Path(shutil.copytree(self.first, self.folder / f"version-{version}"))
        manifest = copy / "bundle.json"
        facts = json.loads(manifest.read_text(encoding="utf-8")) | {"version": version}
        manifest.write_text(json.dumps(facts), encoding="utf-8")
        return copy

    def _publish(self, bundle: Path, *, tampered: bool = False) -> dict[str, Any]:
        said = self._edgekit("publish", str(bundle), "--repo", str(self.repository), "--soak", "1", "--deltas", "0")
        self._upload(tampered=tampered)
        self._say(f"Published {said['release']}")
        return {"release": said["release"]}

    def _upload(self, *, tampered: bool) -> None:
        """What the device looks at is a copy, as on a web server that need not be trusted."""
        fresh, old = self.folder / "upload", self.folder / "before"
        shutil.copytree(self.repository, fresh, copy_function=_place)
        if tampered:
            path = fresh / "metadata" / "timestamp.json"
            said = json.loads(path.read_text(encoding="utf-8"))
            said["signed"]["version"] += 1
            path.unlink()  # it may be the repository's own file
            path.write_text(json.dumps(said), encoding="utf-8")
        if self.server.exists():
            self.server.rename(old)
        fresh.rename(self.server)
        shutil.rmtree(old, ignore_errors=True)

    def _edgekit(self, *arguments: str) -> dict[str, Any]:
        """Run a verb of this device or of the build machine; its JSON. Raises DemoError."""
        environment = os.environ | {"EDGEKIT_HOME": str(self.home), "EDGEKIT_KEY_PASSPHRASE": self._passphrase}
        done = subprocess.run(
            [*demo_agent.EDGEKIT, *arguments, "--json"], env=environment, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise demo_agent.DemoError(f"edgekit {' '.join(arguments[:2])} failed")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _ask(self, url: str, release: str) -> dict[str, Any]:
        """An answer, and that it comes from this release. Raises DemoError."""
        model = self._got(url, "/v1/models")["data"][0]
        answers = f"{model['id']}-{model['meta']['version']}"
        if answers != release:
            raise demo_agent.DemoError(f"{release} should answer, and {answers} does")
        self._say(f"Question  {demo_agent.QUESTION}")
        print("Answer    ", end="", file=self.screen, flush=True)
        asked = demo_agent.ask(url, demo_agent.QUESTION, self.screen)
        self._say(f"\n          said version {model['meta']['version']}\n")
        return {"answers": answers, "answer": asked.answer, "decode_tokens_per_s": asked.decode_tokens_per_s}

    def _await(self, url: str, what: str, over: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Look at the agent until something is so; how it is then. Raises DemoError."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            state = self._got(url, "/v1/edgekit/sync")
            if over(state):
                return state
            time.sleep(POLL_S)
        raise demo_agent.DemoError(f"waited in vain for {what}; {self.log} may tell why")

    def _got(self, url: str, path: str) -> dict[str, Any]:
        """What the agent says to its administrator. Raises DemoError."""
        address = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=demo_agent.ANSWER_S)
        try:
            token = (self.home / "admin-token").read_text(encoding="utf-8").strip()
            with contextlib.closing(connection):
                connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                found: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise demo_agent.DemoError(f"the agent does not answer: {error}; {self.log} may tell why") from error
        if answer.status != http.HTTPStatus.OK:
            raise demo_agent.DemoError(f"the agent answered {answer.status}: {found}")
        return found

    def _say(self, line: str) -> None:
        print(line, file=self.screen, flush=True)


def _place(source: str, target: str) -> None:
    """Another name for a file, where the disk has that; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _active(state: dict[str, Any]) -> str:
    """Which release is active, "" while one is on trial."""
    lines = [line for line in state["lines"] if line["active"] and not line["trial"]]
    return str(lines[0]["active"]) if lines else ""


def _refusal(state: dict[str, Any], release: str) -> str:
    """Why a release failed its trial, "" if it did not."""
    return next((str(one["reason"]) for one in state["refusals"] if one["release"] == release), "")


def _distrust(state: dict[str, Any]) -> str:
    """Why the last look at the repository was refused, "" if it was not."""
    newest = max(state["history"], key=lambda one: one["at"], default=None)
    return str(newest["reason"]) if newest and "not to be trusted" in newest["reason"] else ""
