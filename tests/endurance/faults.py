"""Everything that goes wrong in an endurance run, as a table. A fault begins an update, and spoils it.

Whatever a fault did to servers, limits and clocks is undone when its function is left; what it did to the disk stays.
"""

import contextlib
import json
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import programs
import psutil

from device_agent.releases.store import RELEASES, STAGING, STATE, SYNC_FOLDER
from tests import hostile_http as http
from tests.endurance.processes import Agent
from tests.endurance.scene import Scene, Target
from tests.endurance.works import BROKEN

TIMESTAMP = "metadata/timestamp.json"
PACKS = "packs/.*"
PATIENCE_S = 600.0
FULL = (1 << 10, 100 << 10, 20 << 20)
"""Sizes that a file cannot pass: the record is as large as the first, a bundle's weights are larger than the last."""

Spoil = Callable[[Scene], None]


@dataclass(frozen=True)
class Fault:
    """`ends_agent`: it may."""

    spoil: Spoil
    ends_agent: bool = False


# --- nothing, and networks ------------------------------------------------------------------------


def nothing(scene: Scene) -> None:
    scene.begin(scene.any_way()).over(PATIENCE_S)


def bad_network(scene: Scene) -> None:
    """Some of the next answers, or all packs for a while."""
    fault = scene.draw.choice(
        [
            http.cut(scene.draw.randrange(1 << 20)),
            http.cut(scene.draw.randrange(1 << 16), reset=True),
            http.says(503, {"Retry-After": "1"}),
            http.says(500),
            http.says(404),
            http.portal(),
            http.no_ranges(),
            http.content_range("bytes 0-0/1"),
            http.flipped(scene.draw.randrange(1 << 20)),
            http.over_long(1000),
            http.gzipped(),
            http.chunked(),
            http.raw(b"SSH-2.0-nobody\r\n"),
        ]
    )
    if scene.draw.random() < 0.5:
        scene.server.then(*(fault if scene.draw.random() < 0.5 else None for _ in range(12)))
    else:
        scene.server.always(fault, scene.draw.choice([PACKS, ".*"]))
    attempt = scene.begin(scene.any_way())
    if not attempt.over(scene.a_while()):
        scene.server.mend()
        attempt.over(PATIENCE_S)


def forged(scene: Scene) -> None:
    """Somebody who has no key changes the metadata that everything hangs on, or shows what was right once."""
    current = (scene.works.repo / TIMESTAMP).read_bytes()
    facts = json.loads(current)
    facts["signed"]["version"] += 1
    lie = scene.draw.choice([json.dumps(facts).encode(), scene.works.first_timestamp, current[:-40], b"{}"])
    scene.server.always(http.instead(lie), TIMESTAMP)
    scene.begin(scene.any_way()).over(PATIENCE_S)
    scene.must_not_serve(scene.offered.release, "and its timestamp was forged")


def tampered(scene: Scene) -> None:
    """The metadata is right, and every manifest and channel file has another bit in it."""
    scene.server.always(http.flipped(scene.draw.randrange(1 << 12)), "targets/.*")
    scene.begin(scene.any_way()).over(PATIENCE_S)
    scene.must_not_serve(scene.offered.release, "and its manifest was another one")


# --- kill -9 --------------------------------------------------------------------------------------


def kill(target: Target, *, network: bool = False) -> Spoil:
    """At any moment of an update."""

    def spoil(scene: Scene) -> None:
        if network:
            cut = http.cut(scene.draw.randrange(1 << 20))
            scene.server.then(*(cut if scene.draw.random() < 0.3 else None for _ in range(12)))
        _KILLERS[target](scene)

    return spoil


def _kill_sync(scene: Scene) -> None:
    """If it was over before, the next one, which has less to do."""
    within_s = scene.usual_s
    while True:
        attempt = scene.begin("sync")
        assert attempt.process is not None
        if not attempt.over(scene.draw.uniform(0, within_s)):
            scene.killed("sync")
            attempt.process.kill()
            return
        within_s /= 2


def _kill_trial(scene: Scene) -> None:
    """The first one; the second try has to pass."""
    attempt = scene.begin(scene.any_way())
    trial = attempt.trial(PATIENCE_S)
    if trial is None:
        _kill_sync(scene)
        return
    scene.killed("trial")
    with contextlib.suppress(psutil.NoSuchProcess):
        trial.kill()
    attempt.over(PATIENCE_S)


def _kill_agent(scene: Scene) -> None:
    scene.begin("agent").over(scene.a_while())
    scene.killed("agent")
    scene.device.end(lambda agent: agent.kill())


_KILLERS: Mapping[Target, Spoil] = {"sync": _kill_sync, "trial": _kill_trial, "agent": _kill_agent}


def ended_in_order(scene: Scene) -> None:
    """SIGTERM to the agent."""
    scene.begin("agent").over(scene.a_while())

    def end(agent: Agent) -> None:
        if code := agent.terminate():
            scene.wrong.append(f"the agent was told to end, and did with {code}")

    scene.device.end(end)


def interrupted(scene: Scene) -> None:
    """Ctrl-C to edgekit sync; and meanwhile the channel moves on to another version."""
    attempt = scene.begin("sync")
    if not attempt.over(scene.a_while()) and attempt.process is not None:
        attempt.process.interrupt()
        attempt.over(PATIENCE_S)
    scene.offered = scene.works.publish(scene.draw.choice(scene.works.names))


# --- disks ----------------------------------------------------------------------------------------


@contextmanager
def limited(pid: int, limit: int, soft: int) -> Iterator[None]:
    """A process may have no more of something for a while."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (soft, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, limit, before)


def full_disk(scene: Scene) -> None:
    """No file can grow beyond some size (EFBIG), whoever updates."""
    soft = scene.draw.choice(FULL)
    if scene.draw.random() < 0.5:
        with limited(scene.device.agent.process.pid, resource.RLIMIT_FSIZE, soft):
            scene.begin("agent").over(PATIENCE_S)
        return
    attempt = scene.begin("sync")
    assert attempt.process is not None
    with contextlib.suppress(ProcessLookupError), limited(attempt.process.process.pid, resource.RLIMIT_FSIZE, soft):
        attempt.over(PATIENCE_S)


def few_handles(scene: Scene) -> None:
    """The process can open hardly any file."""
    attempt = scene.begin("sync")
    assert attempt.process is not None
    soft = scene.draw.randrange(4, 24)
    with contextlib.suppress(ProcessLookupError), limited(attempt.process.process.pid, resource.RLIMIT_NOFILE, soft):
        attempt.over(PATIENCE_S)


def rotten_record(scene: Scene) -> None:
    """A bit of one of the record's two slots."""
    _flip(scene, scene.device.home / SYNC_FOLDER / f"{STATE}.{scene.draw.randrange(2)}")
    nothing(scene)


def rotten_staging(scene: Scene) -> None:
    """What was fetched before a cut is not what it was."""
    attempt = scene.begin("sync")
    if not attempt.over(scene.a_while()) and attempt.process is not None:
        scene.killed("sync")
        attempt.process.kill()
    for path in (scene.device.home / SYNC_FOLDER / STAGING).rglob("*"):
        if path.is_file():
            _flip(scene, path)


def rotten_previous(scene: Scene) -> None:
    """A bit of the release that could be gone back to; the scrub finds it."""
    previous = scene.device.line.previous
    if previous is not None:
        _flip(scene, _a_file(scene, previous.folder))
    nothing(scene)


def rotten_active(scene: Scene) -> None:
    """A bit of what serves, and then the power fails."""
    scene.killed("agent")
    scene.device.end(lambda agent: agent.kill())
    active = scene.device.line.active
    if active is not None:
        _flip(scene, _a_file(scene, active.folder))
    scene.device.start()
    nothing(scene)


def _a_file(scene: Scene, folder: str) -> Path:
    files = [path for path in (scene.device.home / SYNC_FOLDER / RELEASES / folder).rglob("*") if path.is_file()]
    return scene.draw.choice(sorted(path for path in files if not path.name.startswith(".")))


def _flip(scene: Scene, path: Path) -> None:
    """In another file of the same name: who has it open keeps the bytes that it was given."""
    with contextlib.suppress(FileNotFoundError):
        data, mode = bytearray(path.read_bytes()), path.stat().st_mode
        if not data:
            return
        data[scene.draw.randrange(len(data))] ^= 1 << scene.draw.randrange(8)
        folder = path.parent.stat().st_mode
        path.parent.chmod(0o700)
        other = scene.folder / "rotten"
        other.write_bytes(data)
        other.chmod(mode)
        other.replace(path)
        path.parent.chmod(folder)


# --- everything else ------------------------------------------------------------------------------


def bad_release(scene: Scene) -> None:
    """Signed, and it does not work."""
    bad = scene.works.publish(BROKEN)
    scene.begin(scene.any_way()).over(PATIENCE_S)
    scene.must_not_serve(bad.release, "and answers nonsense")
    if bad.release not in scene.device.refused():
        scene.wrong.append(f"{bad.release} was not refused")
    scene.offered = scene.works.publish(scene.offered.content)


def wrong_clock(scene: Scene) -> None:
    """Years ahead, or behind."""
    found = programs.find(programs.FAKETIME)
    offset = scene.draw.choice(["+4000d", "+20d", "-1d", "-5000d"])
    scene.begin("sync", before=() if found is None else (found, "-m", "-f", offset)).over(PATIENCE_S)


def stick(scene: Scene) -> None:
    """No network; the repository comes in a tar file, or as a folder."""
    scene.server.always(http.cut(0, reset=True))
    file = scene.works.tar(scene.folder / "stick.tar") if scene.draw.random() < 0.5 else scene.works.repo
    scene.begin("sync", "--repo", str(file)).over(PATIENCE_S)
    if file != scene.works.repo:
        file.unlink()
    line = scene.device.line
    if (line.trial or line.active) is None or scene.offered.release not in {
        ref.id for ref in (line.trial, line.active) if ref is not None
    }:
        scene.wrong.append(f"{scene.offered.release} was on a stick, and did not come from it")


def two_at_once(scene: Scene) -> None:
    """Two processes, and the agent."""
    attempts = [scene.begin("sync"), scene.begin("sync")]
    with contextlib.suppress(Exception):
        scene.device.update()
    for attempt in attempts:
        attempt.over(PATIENCE_S)


def by_hand(scene: Scene) -> None:
    """An operator goes back, and pins."""
    nothing(scene)
    scene.device.rest()
    verb = scene.draw.choice(["rollback", "pin"])
    scene.device.told(verb)
    scene.device.told("unpin")
    scene.offered = scene.works.publish(scene.offered.content)


KILLS: Mapping[str, Fault] = {
    "kill -9: edgekit sync": Fault(kill("sync")),
    "kill -9: edgekit sync, bad network": Fault(kill("sync", network=True)),
    "kill -9: the trial": Fault(kill("trial")),
    "kill -9: the agent": Fault(kill("agent"), ends_agent=True),
    "kill -9: the agent, bad network": Fault(kill("agent", network=True), ends_agent=True),
}
FAULTS: Mapping[str, Fault] = {
    "nothing": Fault(nothing),
    "bad network": Fault(bad_network),
    "forged timestamp": Fault(forged),
    "tampered manifest": Fault(tampered),
    "agent ends in order": Fault(ended_in_order, ends_agent=True),
    "Ctrl-C, and another version": Fault(interrupted),
    "full disk": Fault(full_disk),
    "no file handles": Fault(few_handles),
    "bit flipped: record": Fault(rotten_record),
    "bit flipped: staging": Fault(rotten_staging),
    "bit flipped: previous release": Fault(rotten_previous),
    "bit flipped: active release, power fails": Fault(rotten_active, ends_agent=True),
    "signed, but broken": Fault(bad_release),
    "wrong clock": Fault(wrong_clock),
    "stick, no network": Fault(stick),
    "three updaters at once": Fault(two_at_once),
    "rollback or pin by hand": Fault(by_hand),
}
