"""Memory hints: which ranges they are for, and that no byte changes."""

import mmap
import sys
from pathlib import Path

import pytest

from device_agent import pages
from device_agent.pages import Mapping

SMAPS = """\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
Rss:                4096 kB
Anonymous:          4096 kB
VmFlags: rd wr mr mw me ac sd
7f0001000000-7f0001001000 rw-p 00010000 fe:00 12345                      /models/a b/model.onnx.data
Rss:                   4 kB
Anonymous:             0 kB
"""  # noqa: W291  # the kernel writes that space


def test_a_list_of_mappings_is_read() -> None:
    assert list(pages.mappings_in(SMAPS)) == [
        Mapping(0x7F0000000000, 0x7F0000400000, "rw-p", "", 4 << 20, 4 << 20),
        Mapping(0x7F0001000000, 0x7F0001001000, "rw-p", "/models/a b/model.onnx.data", 4096, 0),
    ]


def test_nothing_is_read_from_nothing() -> None:
    assert list(pages.mappings_in("")) == []


FILE = Mapping(0, 1 << 20, "rw-p", "/m/data", 4096, 0)


@pytest.mark.parametrize(
    ("mapping", "forgotten"),
    [
        pytest.param(FILE, True, id="as-in-the-file"),
        pytest.param(Mapping(0, 1 << 20, "rw-p", "/m/data", 8192, 4096), False, id="changed-in-memory"),
        pytest.param(Mapping(0, 1 << 20, "rw-p", "/m/other", 4096, 0), False, id="another-file"),
        pytest.param(Mapping(0, 1 << 20, "rw-p", "/m/data", 0, 0), False, id="not-resident"),
        pytest.param(Mapping(0, 1 << 20, "rw-p", "", 4096, 4096), False, id="no-file"),
    ],
)
def test_only_pages_that_the_file_still_has_are_forgotten(mapping: Mapping, *, forgotten: bool) -> None:
    assert bool(list(pages.unchanged([mapping], "/m/data"))) is forgotten


@pytest.mark.parametrize(
    ("mapping", "taken"),
    [
        pytest.param(Mapping(0, 4 << 20, "rw-p", "", 4 << 20, 4 << 20), True, id="full"),
        pytest.param(Mapping(0, 4 << 20, "rw-p", "", 2 << 20, 2 << 20), False, id="half-empty"),
        pytest.param(Mapping(0, 1 << 20, "rw-p", "", 1 << 20, 1 << 20), False, id="small"),
        pytest.param(Mapping(0, 4 << 20, "r--p", "", 4 << 20, 4 << 20), False, id="read-only"),
        pytest.param(Mapping(0, 4 << 20, "rw-p", "/m/data", 4 << 20, 4 << 20), False, id="file"),
        pytest.param(Mapping(0, 4 << 20, "rw-p", "[stack]", 4 << 20, 4 << 20), False, id="stack"),
    ],
)
def test_huge_pages_are_for_memory_in_full_use(mapping: Mapping, *, taken: bool) -> None:
    assert bool(list(pages.in_full_use([mapping]))) is taken


@pytest.mark.skipif(sys.platform != "linux", reason="hints are for Linux")
def test_a_mapped_file_is_let_go_and_reads_as_before(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = bytes(range(256)) * 4096
    path.write_bytes(content)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content
        assert pages.let_go(path) == len(content)
        assert mapped[:] == content


@pytest.mark.skipif(sys.platform != "linux", reason="hints are for Linux")
def test_what_was_changed_in_memory_is_never_let_go(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 8192)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0] = ord("b")
        assert pages.let_go(path) == 0
        assert mapped[0] == ord("b")


def test_moving_memory_into_huge_pages_changes_nothing_in_it() -> None:
    with mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = content = bytes(range(256)) * (8 << 12)
        assert pages.gather() >= 0
        assert memory[:] == content


@pytest.mark.parametrize("setting", ["always madvise [never]\n", ""])
def test_a_system_that_wants_no_huge_pages_gets_none(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enabled").write_text(setting, encoding="ascii")
    monkeypatch.setattr(pages, "_HUGE_SETTING", tmp_path / "enabled")
    monkeypatch.setattr(pages, "in_full_use", lambda _: pytest.fail("memory was looked for"))
    assert pages.gather() == 0


def test_elsewhere_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(pages, "_read", lambda _: pytest.fail("there is no /proc"))
    assert pages.let_go(tmp_path) == 0


def test_the_work_beside_ends() -> None:
    thread = pages.gather_beside()
    thread.join()
    assert not thread.is_alive()
