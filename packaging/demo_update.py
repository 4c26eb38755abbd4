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
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import demo

LOOK_S = 2
"""How often the demo's agent looks for updates, instead of once an hour."""

WAIT_S = 300.0
_FLIP = 0xFF


class Act:
    """The stage: a repository, a device's home, and where they are told of."""

    def __init__(self, folder: Path, model: Path, first: Path, screen: TextIO) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.model, self.first, self.screen = folder, model, first, screen
        self.repository = folder / "repository"
        self.server = folder / "server"
        self.home = folder / "device"

    def play(self, port: int | None) -> dict[str, Any]:
        """All of it; what happened. Raises DemoError."""
        self._edgekit("repo", "init", str(self.repository))
        said = [self._publish(self.first)]
        provisioning = self.folder / "provisioning.json"
        self._edgekit("repo", "provision", str(self.repository), "--url", str(self.server), "-o", str(provisioning))
        self._edgekit("enrol", str(provisioning))
        self._say("Device    enrolled; it trusts the repository's root key, and nobody else")
        installed = self._edgekit("sync", "--once")
        self._say(f"Version 1 installed: {installed['outcomes'][0]['release']}")
        variables = {"EDGEKIT_HOME": str(self.home), "EDGEKIT_SYNC_INTERVAL_S": str(LOOK_S)}
        with demo.agent(None, port, variables=variables) as (_, url):
            said.append(self._ask(url))
            said += [self._second(url), self._third(url), self._fourth(url)]
        return {"versions": said, "url": url}

    # --- the versions -------------------------------------------------------------------------------

    def _second(self, url: str) -> dict[str, Any]:
        second = self.first.with_name(f"{self.first.name}-v2")
        if not second.is_dir() or demo.edgekit("verify", str(second)):
            shutil.rmtree(second, ignore_errors=True)
            self._say("Version 2 is the same model with 8-bit weights: exporting")
            named = json.loads((self.first / "bundle.json").read_text(encoding="utf-8"))["name"]
            options = ("--quant", "int8", "--name", named, "--version", "2")
            if demo.edgekit("export", str(self.model), "-o", str(second), *options):
                raise demo.DemoError("the export of version 2 failed")
        published = self._publish(second)
        self._await(url, "version 2 to serve", lambda state: _active(state) == published["release"])
        self._say(f"Version 2 was picked up and passed its trial: {published['release']} serves")
        return published | self._ask(url)

    def _third(self, url: str) -> dict[str, Any]:
        """Weights of version 1, every fourth byte of them turned round; hashed and signed all the same."""
        third = self.folder / "bad"
        shutil.copytree(self.first, third)
        data = third / "model.onnx.data"
        weights = bytearray(data.read_bytes())
        weights[::4] = bytes(value ^ _FLIP for value in weights[::4])
        data.write_bytes(weights)
        manifest = third / "bundle.json"
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        facts["version"] = "3"
        for entry in facts["files"]:
            if entry["path"] == data.name:
                entry["sha256"] = hashlib.sha256(weights).hexdigest()
        manifest.write_text(json.dumps(facts), encoding="utf-8")
        published = self._publish(third)
        shutil.rmtree(third)
        state = self._await(url, "version 3 to be refused", lambda state: _refusal(state, published["release"]))
        reason = _refusal(state, published["release"])
        self._say(f"Version 3 is signed, but broken. Its trial said: {reason}")
        return published | {"refused": reason} | self._ask(url)

    def _fourth(self, url: str) -> dict[str, Any]:
        """The repository's newest timestamp, with one more hour to live than its owner gave it."""
        fourth = self.folder / "fourth"
        shutil.copytree(self.first, fourth)
        manifest = fourth / "bundle.json"
        facts = json.loads(manifest.read_text(encoding="utf-8")) | {"version": "4"}
        manifest.write_text(json.dumps(facts), encoding="utf-8")
        published = self._publish(fourth, tampered=True)
        shutil.rmtree(fourth)
        state = self._await(url, "version 4 to be refused", _distrust)
        self._say(f"Version 4 was changed on the way. The agent says: {_distrust(state)}")
        return published | {"refused": _distrust(state)} | self._ask(url)

    # --- what is done -------------------------------------------------------------------------------

    def _publish(self, bundle: Path, *, tampered: bool = False) -> dict[str, Any]:
        said = self._edgekit("publish", str(bundle), "--repo", str(self.repository), "--soak", "1", "--deltas", "0")
        self._upload(tampered=tampered)
        self._say(f"Published {said['release']}")
        return said

    def _upload(self, *, tampered: bool) -> None:
        """What the device looks at is a copy, as on a web server that need not be trusted."""
        fresh, old = self.folder / "upload", self.folder / "before"
        shutil.copytree(self.repository, fresh)
        if tampered:
            path = fresh / "metadata" / "timestamp.json"
            said = json.loads(path.read_text(encoding="utf-8"))
            said["signed"]["version"] += 1
            path.write_text(json.dumps(said), encoding="utf-8")
        if self.server.exists():
            self.server.rename(old)
        fresh.rename(self.server)
        shutil.rmtree(old, ignore_errors=True)

    def _edgekit(self, *arguments: str) -> dict[str, Any]:
        """Run a verb of this device or of the build machine; its JSON. Raises DemoError."""
        environment = os.environ | {"EDGEKIT_HOME": str(self.home)}
        done = subprocess.run(
            [*demo.EDGEKIT, *arguments, "--json"], env=environment, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise demo.DemoError(f"edgekit {' '.join(arguments[:2])} failed")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _ask(self, url: str) -> dict[str, Any]:
        self._say(f"Question  {demo.QUESTION}")
        print("Answer    ", end="", file=self.screen, flush=True)
        asked = demo.ask(url, demo.QUESTION, self.screen)
        self._say("")
        return {"answer": asked.answer, "decode_tokens_per_s": asked.decode_tokens_per_s}

    def _await(self, url: str, what: str, over: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Look at the agent until something is so; how it is then. Raises DemoError."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            state = self._state(url)
            if over(state):
                return state
            time.sleep(0.5)
        raise demo.DemoError(f"waited in vain for {what}")

    def _state(self, url: str) -> dict[str, Any]:
        address = urllib.parse.urlsplit(url)
        token = (self.home / "admin-token").read_text(encoding="utf-8").strip()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=demo.ANSWER_S)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/edgekit/sync", headers={"Authorization": f"Bearer {token}"})
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found

    def _say(self, line: str) -> None:
        print(line, file=self.screen, flush=True)


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
