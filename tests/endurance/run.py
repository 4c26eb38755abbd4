"""The endurance run: update after update, each with a fault, and after each what must be so whatever happened."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.endurance.asking import MODEL, NotServed, ask
from tests.endurance.clients import Clients
from tests.endurance.device import Device, Stuck
from tests.endurance.disk import MOST_OTHER_BYTES, Gauge, Held, held, leaks
from tests.endurance.faults import FAULTS, KILLS, Fault
from tests.endurance.scene import Scene
from tests.endurance.works import PROMPTS, Signed, Works
from tests.hostile_http import Hostile

Tell = Callable[[str], None]
CLIENTS = 2
DELTA_SHARE = 0.05
"""Of the updates between contents that lie near each other: making differences takes the build machine's time."""
SETTLED = 3
"""Updates to a content whose memory is taken to be what the agent needs for it."""
MOST_GROWTH_BYTES = 160 << 20


@dataclass(frozen=True)
class Plan:
    """What is to happen. `near` are contents between which there are small differences."""

    contents: Mapping[str, Path]
    near: frozenset[str]
    updates: int
    kills: int
    seed: int

    def faults(self) -> list[str]:
        """One for each update; those that never end the agent come first, so that one agent lives through all of them.

        Raises ValueError if there are more kills than updates.
        """
        if self.kills > self.updates:
            raise ValueError("each update has one fault: there cannot be more kills than updates")
        draw = random.Random(self.seed)
        found = [*_dealt(KILLS, self.kills, draw), *_dealt(FAULTS, self.updates - self.kills, draw)]
        draw.shuffle(found)
        return sorted(found, key=lambda name: _fault(name).ends_agent)


@dataclass
class Report:
    """What came of it. `wrong` has a sentence for everything that should not have been."""

    seed: int
    updates: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    served_releases: int = 0
    longest_answer_s: float = 0.0
    most_disk_share: float = 0.0
    most_disk_bytes: int = 0
    lives: list[list[Held]] = field(default_factory=list)
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def longest_life(self) -> list[Held]:
        """Of the agent, by updates."""
        return max(self.lives, key=len, default=[])

    def median_s(self, fault: str) -> float:
        """Of the updates with a fault, with the pass that made it good."""
        return statistics.median(self.seconds[fault])


def run(plan: Plan, folder: Path, tell: Tell = lambda _: None) -> Report:
    """All of it, in `folder`. What was wrong is in the report; only a device that is stuck ends it early."""
    draw, report, began = random.Random(plan.seed), Report(plan.seed), time.monotonic()
    works = Works(folder / "works", plan.contents)
    works.learn()
    with Hostile(works.repo) as server:
        device = Device(folder / "device", works.provision(server.url))
        try:
            _Run(plan, works, server, device, draw, report, tell).play()
        finally:
            if device.life.agent is not None:
                device.end(lambda agent: agent.kill())
    report.took_s = time.monotonic() - began
    return report


class _Run:
    def __init__(
        self, plan: Plan, works: Works, server: Hostile, device: Device, draw: random.Random, report: Report, tell: Tell
    ) -> None:
        self._plan, self._works, self._server, self._device = plan, works, server, device
        self._draw, self._report, self._tell = draw, report, tell
        self._gauge = Gauge(device.home)
        self._life = 0
        self._usual_s = 0.0

    def play(self) -> None:
        """The first version is there before anybody asks."""
        first = self._works.publish(self._draw.choice(self._works.names))
        began = time.monotonic()
        self._device.synced()
        self._usual_s = time.monotonic() - began
        self._device.start()
        self._device.rest()
        clients = Clients(self._device, self._works, CLIENTS, self._plan.seed)
        self._must_serve(first)
        with clients.asking(), self._gauge.watching():
            for number, name in enumerate(self._plan.faults(), 1):
                try:
                    self._step(number, name)
                except Stuck as problem:
                    self._wrong(number, name, [str(problem)])
                    break
        self._report.wrong += clients.wrong
        self._report.answers = clients.counts
        self._report.served_releases = len(clients.served)
        self._report.longest_answer_s = clients.longest_s

    def _step(self, number: int, name: str) -> None:
        before = self._versions()
        published = len(self._works.signed)
        offered = self._publish(before)
        self._gauge.most()
        self._server.asked.clear()
        began = time.monotonic()
        scene = Scene(
            self._device,
            self._works,
            self._server,
            self._draw,
            self._works.folder,
            self._usual_s,
            offered,
            kills=self._report.kills,
        )
        _fault(name).spoil(scene)
        self._server.mend()
        self._converge(scene)
        took_s = time.monotonic() - began
        self._look(scene, [*before, *self._works.signed[published:]])
        self._report.updates += 1
        self._report.seconds.setdefault(name, []).append(took_s)
        self._wrong(number, name, scene.wrong)
        self._tell(f"{number:4}  {took_s:5.1f} s  {self._device.line.active.id:24}  {name}")  # type: ignore[union-attr]

    def _publish(self, before: Sequence[Signed]) -> Signed:
        """Another content than the one that serves; mostly one that the device has not kept either."""
        has = [signed.content for signed in before]
        new = [name for name in self._works.names if name not in has]
        others = [name for name in self._works.names if name not in has[:1]]
        content = self._draw.choice(new if new and self._draw.random() < 0.7 else others)
        near = [signed for signed in before[:1] if {signed.content, content} <= self._plan.near]
        return self._works.publish(content, bases=near if self._draw.random() < DELTA_SHARE else ())

    # --- what must be so afterwards ---------------------------------------------------------------

    def _converge(self, scene: Scene) -> None:
        """One pass without any fault brings what is offered; the one after it finds nothing to do."""
        device = self._device
        device.start()
        device.rest()
        entry = device.updated() if self._draw.random() < 0.5 else device.synced()
        device.rest()
        line = device.line
        if line.active is None or line.active.id != scene.offered.release or line.trial is not None:
            scene.wrong.append(f"{scene.offered.release} did not come: {line}, {entry}")
            return
        self._must_serve(scene.offered)
        again = device.updated()
        device.rest()
        if (again.ending, again.moved_bytes) != ("current", 0):
            scene.wrong.append(f"nothing was new, and the agent did something: {again}")

    def _must_serve(self, offered: Signed) -> None:
        """A new request is answered by it; the agent takes over what another process did within a second or so."""
        port = self._device.agent.port

        def served() -> bool:
            try:
                answer = ask(port, MODEL, PROMPTS[0])
            except NotServed:
                return False
            return self._works.release_of(answer) == offered.release

        self._device.until(f"{offered.release} to serve", served)

    def _look(self, scene: Scene, releases: Sequence[Signed]) -> None:
        """Disk, memory and files."""
        bound = sum(sorted((signed.bytes for signed in releases), reverse=True)[:3]) + MOST_OTHER_BYTES
        most = self._gauge.most()
        if most > bound:
            scene.wrong.append(f"the device's folder held {most:,} bytes, and {bound:,} are enough for three releases")
        self._report.most_disk_bytes = max(self._report.most_disk_bytes, most)
        self._report.most_disk_share = max(self._report.most_disk_share, most / bound)
        scene.wrong += [f"left on the disk: {found}" for found in leaks(self._device)]
        if self._device.life.number != self._life:
            self._life = self._device.life.number
            self._report.lives.append([])
        life = self._report.lives[-1]
        life.append(held(self._device.agent.process.pid, scene.offered.content))
        alike = [one for one in life if one.content == scene.offered.content]
        if alike[-1].rss_bytes > max(one.rss_bytes for one in alike[:SETTLED]) + MOST_GROWTH_BYTES:
            scene.wrong.append(f"the agent's memory grew: from {alike[:SETTLED]} to {alike[-1]}")

    def _versions(self) -> list[Signed]:
        """What the device has: the active release first."""
        line, known = self._device.line, {signed.release: signed for signed in self._works.signed}
        return [known[ref.id] for ref in (line.active, line.previous) if ref is not None]

    def _wrong(self, number: int, name: str, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            said = f"update {number} ({name}): {sentence}"
            self._report.wrong.append(said)
            self._tell(f"WRONG {said}")


def _dealt(faults: Mapping[str, Fault], count: int, draw: random.Random) -> list[str]:
    """Each as often as the others, as far as that comes out even."""
    names = draw.sample(sorted(faults), len(faults))
    return [names[i % len(names)] for i in range(count)]


def _fault(name: str) -> Fault:
    return FAULTS[name] if name in FAULTS else KILLS[name]
