"""What a device does to its disk, as scenarios for the explorer: the table that test_device.py goes through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.crashes.device import World
from tests.crashes.disk import Marks
from tests.crashes.explorer import Scenario
from tests.crashes.recorder import Recorder
from tests.repositories import Key

USERS = b"mine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """`before` brings the device to where it begins; `offers` then changes the repository; `act` is what is cut off.

    `may_serve` are the versions that may serve after a crash before the act has promised one ("" is none);
    `ends_with` is what must serve once an update has come through afterwards.
    """

    before: Callable[[World, Path], None]
    offers: Callable[[World], None] = lambda _: None
    act: Callable[[World, Path, Recorder], None]
    may_serve: frozenset[str]
    ends_with: str


# --- where devices begin ------------------------------------------------------------------------


def _enrolled(world: World, home: Path) -> None:
    world.enrolled(home)


def _has(*versions: str) -> Callable[[World, Path], None]:
    def before(world: World, home: Path) -> None:
        world.enrolled(home)
        for version in versions:
            world.offer(version)
            world.update(home)

    return before


# --- what they do --------------------------------------------------------------------------------


def _update(version: str) -> Callable[[World, Path, Recorder], None]:
    def act(world: World, home: Path, recorder: Recorder) -> None:
        [outcome] = world.update(home)
        assert outcome.ending == "installed", outcome
        recorder.mark(f"active {version}")

    return act


def _refresh(world: World, home: Path, recorder: Recorder) -> None:
    device = world.started(home)
    with_floor = device.trust.refresh(world.repository.source())
    recorder.mark(f"floor {with_floor.timestamp_version}")


def _refuse(world: World, home: Path, recorder: Recorder) -> None:
    [outcome] = world.update(home)
    assert outcome.ending == "refused", outcome
    recorder.mark("refused")


def _soak(world: World, home: Path, recorder: Recorder) -> None:
    """Passed, and serving; the agent ends in order, starts again, and the soak comes to its end."""
    world.update(home, soaked=False)
    recorder.mark("serves 2")
    device = world.started(home)
    device.activation.close()
    device = world.started(home)
    device.activation.soaked()
    world.ticks += 100
    device.activation.soaked()
    assert device.store.state().line("stable").trial is None
    recorder.mark("active 2")


def _roll_back(world: World, home: Path, recorder: Recorder) -> None:
    device = world.started(home)
    device.activation.rollback("stable")
    recorder.mark("active 1")


def _pin(world: World, home: Path, recorder: Recorder) -> None:
    device = world.started(home)
    device.activation.pin("stable", None)
    recorder.mark("pinned")


def _collect(world: World, home: Path, recorder: Recorder) -> None:
    device = world.started(home)
    device.store.collect()
    recorder.mark("collected")


# --- what the repository does meanwhile ------------------------------------------------------------


def _offer(version: str, *, base: str | None = None) -> Callable[[World], None]:
    return lambda world: world.offer(version, base=base)


def _bad(world: World) -> None:
    world.bad.add("2")
    world.offer("2")


def _rotated(world: World) -> None:
    for role in ("root", "timestamp", "snapshot", "releases"):
        world.repository.rotate(role, Key(f"new {role}"))
    world.offer("2")


ONE, TWO = frozenset({"1"}), frozenset({"1", "2"})

ACTS: Mapping[str, Act] = {
    "d01 refresh": Act(before=_has("1"), offers=_offer("2"), act=_refresh, may_serve=ONE, ends_with="2"),
    "d02 first update": Act(before=_enrolled, act=_update("1"), may_serve=frozenset({"", "1"}), ends_with="1"),
    "d03 update by differences": Act(
        before=_has("1"), offers=_offer("2", base="1"), act=_update("2"), may_serve=TWO, ends_with="2"
    ),
    "d05 refused in its trial": Act(before=_has("1"), offers=_bad, act=_refuse, may_serve=ONE, ends_with="1"),
    "d06 soak": Act(before=_has("1"), offers=_offer("2"), act=_soak, may_serve=TWO, ends_with="2"),
    "d07 rollback": Act(before=_has("1", "2"), act=_roll_back, may_serve=TWO, ends_with="1"),
    "d07 pin": Act(before=_has("1", "2"), act=_pin, may_serve=frozenset({"2"}), ends_with="2"),
    "d08 collection": Act(
        before=_has("1", "2", "3"), act=_collect, may_serve=frozenset({"3"}), ends_with="3"
    ),
    "d08 third update": Act(
        before=_has("1", "2"),
        offers=_offer("3", base="2"),
        act=_update("3"),
        may_serve=frozenset({"2", "3"}),
        ends_with="3",
    ),
    "d09 rotated keys": Act(before=_has("1"), offers=_rotated, act=_update("2"), may_serve=TWO, ends_with="2"),
}  # fmt: skip


def scenario(world: World, act: Act) -> Scenario:
    """An act as the explorer wants it."""

    def prepare(home: Path) -> None:
        (home / "notes.txt").write_bytes(USERS)
        world.offer("1")
        act.before(world, home)
        act.offers(world)
        world.least_floor = world.look(home).floor

    def check(home: Path, marks: Marks) -> None:
        world.ticks = 0.0
        promised = [mark.partition(" ")[2] for mark in marks if mark.startswith("active")]
        seen = world.look(home)
        assert seen.served <= (frozenset(promised[-1:]) or act.may_serve), f"{set(seen.served)} serves"
        floors = [int(mark.partition(" ")[2]) for mark in marks if mark.startswith("floor")]
        assert seen.floor >= max([world.least_floor, *floors]), "the floor fell"
        line = seen.state.line("stable")
        assert line.pin is not None or "pinned" not in marks, "the pin is lost"
        assert seen.state.refusals or "refused" not in marks, "the refusal is lost"

    def converge(home: Path) -> None:
        world.update(home)
        world.ticks = 1000.0
        seen = world.look(home)
        given_up = any("ended each time" in refusal.reason for refusal in seen.state.refusals)  # one start too many
        ends_well = seen.served == {act.ends_with} or (given_up and seen.served <= act.may_serve)
        assert ends_well, f"{set(seen.served)} serves in the end"

    def observe(home: Path) -> Marks:
        seen = world.look(home)
        line = seen.state.line("stable")
        marks = [f"floor {seen.floor}"]
        marks += ["pinned"] if line.pin is not None else []
        marks += ["refused"] if seen.state.refusals else []
        marks += [f"active {one}" for one in seen.served if line.trial is None and one]
        return tuple(marks)

    return Scenario(
        prepare=prepare,
        act=lambda home, recorder: act.act(world, home, recorder),
        recover=lambda home: _quiet(world, home),
        check=check,
        converge=converge,
        observe=observe,
    )


def _quiet(world: World, home: Path) -> None:
    """A start, and the first look at what soaks."""
    world.ticks = 0.0
    device = world.started(home)
    device.activation.soaked()
