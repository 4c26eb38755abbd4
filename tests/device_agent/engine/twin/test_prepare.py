"""Every way from a bundle to a twin, or to none; what goes wrong never stops the decoder."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.engine.records import PrefillMode
from device_agent.engine.twin import prepare as room
from device_agent.engine.twin.cachefile import TwinCache
from device_agent.engine.twin.prepare import Preparation, Runtime, Stopped, prepare
from edgekit import contract
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import CorruptBundle
from tests.device_agent.bundles import TINY, TWIN
from tests.device_agent.engine.twin.test_choose import Rows, Twin

PLENTY = 1 << 40


class Machine:
    """A runtime whose clock is the rows' and whose twins are fakes."""

    def __init__(self, twin_s: float = 0.1, memory: int = PLENTY) -> None:
        self.rows, self.memory = Rows(twin_s), memory
        self.opened: list[Path] = []

    def open(self, path: Path) -> Twin:
        assert (path.parent / contract.PREFILL_DATA).is_file()
        self.opened.append(path)
        return Twin()

    @property
    def runtime(self) -> Runtime[Twin]:
        return Runtime(self.open, self.rows, "1.32.0", 2, lambda: 64, lambda: self.memory)


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle(TWIN)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr("device_agent.engine.twin.choose.time.perf_counter", lambda: made.rows.now)
    return made


def test_a_faster_twin_is_made_opened_and_measured_once(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    first = prepare(bundle, tmp_path, "auto", machine.runtime)
    assert first is not None
    assert first.crossover == 8
    assert machine.opened == [TwinCache(tmp_path / "cache" / "prefill").folder(bundle, 64) / contract.PREFILL_FILE]
    read = machine.rows.reads
    again = prepare(bundle, tmp_path, "auto", machine.runtime)
    assert again is not None
    assert (again.crossover, machine.rows.reads) == (8, read)


def test_a_slower_twin_is_not_even_opened_the_next_time(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    machine.rows.twin_s = 3.0
    assert prepare(bundle, tmp_path, "auto", machine.runtime) is None
    assert len(machine.opened) == 1
    assert prepare(bundle, tmp_path, "auto", machine.runtime) is None
    assert len(machine.opened) == 1
    forced = prepare(bundle, tmp_path, "int8", machine.runtime)
    assert forced is not None
    assert forced.crossover == 1


def test_int8_does_not_measure(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    assert prepare(bundle, tmp_path, "int8", machine.runtime) is not None
    assert not machine.rows.reads


@pytest.mark.parametrize(("folder", "mode"), [(TWIN, "int4"), (TINY, "auto"), (TINY, "int8")])
def test_nothing_is_made_where_none_is_wanted_or_possible(
    folder: Path, mode: PrefillMode, tmp_path: Path, machine: Machine
) -> None:
    assert prepare(open_bundle(folder), tmp_path, mode, machine.runtime) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["auto", "int8"])
def test_short_memory_means_no_twin(mode: PrefillMode, bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    machine.memory = room.RESERVE_BYTES + 1000
    assert prepare(bundle, tmp_path, mode, machine.runtime) is None
    assert not machine.opened
    machine.memory = PLENTY
    assert prepare(bundle, tmp_path, mode, machine.runtime) is not None


def test_another_processor_measures_for_itself(
    bundle: Bundle, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(bundle, tmp_path, "auto", machine.runtime)
    read = machine.rows.reads
    monkeypatch.setattr(room, "processor_name", lambda: "another")
    prepare(bundle, tmp_path, "auto", machine.runtime)
    assert machine.rows.reads == 2 * read


def test_a_home_that_cannot_be_written_means_no_twin(
    bundle: Bundle, tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert prepare(bundle, tmp_path, "auto", machine.runtime) is None
    assert "decoder's own weights" in caplog.text


def test_a_stop_ends_the_making(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    with pytest.raises(Stopped):
        prepare(bundle, tmp_path, "auto", machine.runtime, stopped=lambda: True)
    assert not machine.opened


def test_the_unpacking_thread_alone_gives_way(
    bundle: Bundle, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that onnxruntime makes inherit their maker's priority."""
    nice: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.nice", lambda _: nice.append(threading.current_thread().name))
    prepare(bundle, tmp_path, "auto", machine.runtime)
    assert [name.startswith("twin") for name in nice] == [True]
    monkeypatch.setattr("sys.platform", "darwin")
    prepare(bundle, tmp_path / "other", "auto", machine.runtime)
    assert len(nice) == 1


def background(
    bundle: Bundle, home: Path, runtime: Callable[[], Runtime[Twin]]
) -> tuple[Preparation[Twin], list[Twin]]:
    ready: list[Twin] = []
    return Preparation(bundle, home, "auto", runtime, ready.append), ready


def test_in_the_background_the_twin_is_handed_over(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    preparation, ready = background(bundle, tmp_path, lambda: machine.runtime)
    preparation.start()
    preparation.join()
    assert [twin.crossover for twin in ready] == [8]
    preparation.stop()


def test_after_a_stop_nothing_is_handed_over(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def runtime() -> Runtime[Twin]:
        entered.set()
        go_on.wait()
        return machine.runtime

    preparation, ready = background(bundle, tmp_path, runtime)
    preparation.start()
    entered.wait()
    preparation._stopped.set()
    go_on.set()
    preparation.stop()
    assert not ready
    assert not machine.opened


def test_a_graph_that_onnxruntime_refuses_is_logged(
    bundle: Bundle, tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> Twin:
        raise CorruptBundle("here", "no such operator")

    broken: Runtime[Twin] = Runtime(refuse, machine.rows, "1.32.0", 2, lambda: 64, lambda: PLENTY)
    preparation, ready = background(bundle, tmp_path, lambda: broken)
    preparation.start()
    preparation.join()
    assert not ready
    assert "no such operator" in caplog.text


def test_a_preparation_that_never_began_can_be_stopped(bundle: Bundle, tmp_path: Path, machine: Machine) -> None:
    preparation, ready = background(bundle, tmp_path, lambda: machine.runtime)
    preparation.stop()
    assert not ready
