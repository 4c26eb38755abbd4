"""The build machine of an endurance run: a few bundles, published again and again under new versions.

Packs are named after their content, so that version 200 of the same weights costs the repository a manifest. What each
bundle answers is learnt from an agent that serves nothing else: whatever else a device answers later is wrong.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgekit.release.manifest import HealthFloor
from export.publish import pipeline
from export.publish.bundles import select, shelf_of
from export.publish.copying import write_tar
from export.publish.keys import Keyring
from export.publish.pipeline import Job
from export.publish.repository import Repository
from tests.endurance.asking import Answer, ask, catalogue
from tests.endurance.processes import Agent
from tests.export.silent import SILENT
from tests.imports import ROOT

CHANNEL = "stable"
DATA_FILE, MANIFEST_FILE = "model.onnx.data", "bundle.json"
BROKEN = "broken"
SOAK_S = 1.0
PROMPTS = (
    "What is the capital of France? Answer in one sentence.",
    "Write a sentence about a river.",
    "What is seven plus five?",
    "Tell me why the sky is blue.",
)
_FLIP = 0xFF


@dataclass(frozen=True)
class Signed:
    """A release that the owner has signed. `content` names the bundle that it was made of, `good` whether it works."""

    version: str
    release: str
    content: str
    bytes: int
    good: bool = True


class Works:
    """Publishes versions of `contents`, and of one that is signed like them but answers nonsense."""

    def __init__(self, folder: Path, contents: Mapping[str, Path]) -> None:
        self.folder = folder
        self.repo = folder / "repository"
        self._contents = dict(contents)
        self.signed: list[Signed] = []
        self._by_fingerprint: dict[str, Signed] = {}
        self._answers: dict[str, dict[str, str]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        edgekit("repo", "init", str(self.repo))
        self._repository = Repository.open(self.repo)
        self._keyring = Keyring.open([self.repo.with_name("repository.keys")], lambda _: None)
        self.first_timestamp = b""
        self._contents[BROKEN] = _broken(next(iter(self._contents.values())), folder / BROKEN)

    @property
    def names(self) -> tuple[str, ...]:
        """Contents that work."""
        return tuple(name for name in self._contents if name != BROKEN)

    def provision(self, url: str) -> Path:
        """What a device is told before it trusts anybody."""
        file = self.folder / "provisioning.json"
        edgekit("repo", "provision", str(self.repo), "--url", url, "-o", str(file))
        return file

    # --- what is right ----------------------------------------------------------------------------

    def learn(self) -> None:
        """Have each content answer each prompt, twice, while nothing else goes on. Raises ValueError if they agree."""
        place = self.folder / "to-learn"
        for name in self.names:
            _linked(self._contents[name], place / name, version=name)
        home = self.folder / "learning"
        with closing(Agent.start(home, str(place))) as agent:
            found = {version: model for model, version in catalogue(agent.port)}
            for name in self.names:
                first, again = ({text: _text(agent.port, found[name], text) for text in PROMPTS} for _ in range(2))
                if first != again:
                    raise ValueError(f"{name} does not answer the same twice")
                self._answers[name] = first
        shutil.rmtree(place)
        shutil.rmtree(home)
        if len({tuple(answers.values()) for answers in self._answers.values()}) < len(self._answers):
            raise ValueError("two of the contents give the same answers, and cannot be told apart by them")

    def wrong_with(self, prompt: str, answer: Answer) -> str:
        """Why an answer cannot be a signed release's, "" if it can. One that was cut off must begin like it."""
        releases = {self._by_fingerprint.get(name) for name in answer.fingerprints}
        if len(releases) > 1:
            return f"it mixes {len(releases)} releases"
        for one in releases:
            if one is None:
                return f"it comes from a release that was never signed: {answer.fingerprints}"
            if not one.good:
                return f"it comes from {one.release}, which does not pass any trial"
            known = self._answers[one.content][prompt]
            if not (known == answer.text if answer.whole else known.startswith(answer.text)):
                return f"{one.release} does not say {answer.text!r} but {known!r}"
        return ""

    def release_of(self, answer: Answer) -> str:
        """Id of the release that gave an answer."""
        return ", ".join(self._by_fingerprint[name].release for name in answer.fingerprints)

    # --- publishing -------------------------------------------------------------------------------

    def publish(self, content: str, *, bases: Sequence[Signed] = ()) -> Signed:
        """The next version: these bytes again, with differences from some releases."""
        version = str(len(self.signed) + 1)
        made = self.folder / "next"
        name = _linked(self._contents[content], made, version=version)
        job = Job(
            folder=made,
            channel=CHANNEL,
            health=HealthFloor(soak_s=SOAK_S),
            bases=tuple(base.release for base in bases),
        )
        outcome = pipeline.publish(job, self._repository, self._keyring, SILENT, now=time.time())
        shutil.rmtree(made)
        self.first_timestamp = self.first_timestamp or (self.repo / "metadata" / "timestamp.json").read_bytes()
        signed = Signed(version, outcome.release.id, content, outcome.release.file_bytes, content != BROKEN)
        self.signed.append(signed)
        self._by_fingerprint[_fingerprint(name, version)] = signed
        return signed

    def tar(self, file: Path) -> Path:
        """What is offered now, in one file that a stick could carry."""
        shelf = shelf_of(self._repository)
        write_tar(select(shelf, (), now=time.time()), self.repo, file, lambda _done, _total: None)
        return file


def edgekit(*arguments: str) -> None:
    """Run a verb of the build machine."""
    command = [sys.executable, "-m", "edgekit", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _text(port: int, model: str, prompt: str) -> str:
    return ask(port, model, prompt).text


def _fingerprint(name: str, version: str) -> str:
    return "fp_" + hashlib.sha256(f"{name}\n{version}".encode()).hexdigest()[:12]


def _linked(bundle: Path, folder: Path, *, version: str) -> str:
    """The same files under another version; the model's name."""
    shutil.copytree(bundle, folder, copy_function=os.link)
    manifest = folder / MANIFEST_FILE
    facts = json.loads(manifest.read_bytes()) | {"version": version}
    manifest.unlink()  # or the bundle's own would be written
    manifest.write_text(json.dumps(facts), encoding="utf-8")
    return str(facts["name"])


def _broken(bundle: Path, folder: Path) -> Path:
    """Every fourth byte of its weights turned round, and all digests right."""
    _linked(bundle, folder, version=BROKEN)
    data, manifest = folder / DATA_FILE, folder / MANIFEST_FILE
    weights = bytearray(data.read_bytes())
    weights[::4] = bytes(value ^ _FLIP for value in weights[::4])
    data.unlink()
    data.write_bytes(weights)
    facts = json.loads(manifest.read_bytes())
    for entry in facts["files"]:
        if entry["path"] == data.name:
            entry["sha256"] = hashlib.sha256(weights).hexdigest()
    manifest.write_text(json.dumps(facts), encoding="utf-8")
    return folder
