"""Cores are counted from the system's own words."""

import pytest

from edgekit.hardware import (
    peak_rss_bytes,
    physical_cores_in,
    processor_name,
    processor_name_in,
    quota_cores_in,
    usable_cores,
)


def cpu(physical: int | None, core: int | None) -> str:
    lines = ["processor\t: 0", "model name\t: a: strange name"]
    lines += [] if physical is None else [f"physical id\t: {physical}"]
    lines += [] if core is None else [f"core id\t\t: {core}"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("sections", "cores"),
    [
        pytest.param([cpu(0, 0), cpu(0, 1), cpu(0, 0), cpu(0, 1)], 2, id="hyper-threads count once"),
        pytest.param([cpu(0, 0), cpu(1, 0)], 2, id="two sockets count twice"),
        pytest.param([cpu(None, 0), cpu(None, 1)], 2, id="no socket named"),
        pytest.param([cpu(None, None)] * 4, None, id="ARM names no cores"),
        pytest.param([], None, id="nothing to read"),
    ],
)
def test_physical_cores_are_distinct_pairs_of_socket_and_core(sections: list[str], cores: int | None) -> None:
    assert physical_cores_in("\n\n".join(sections) + "\n\n") == cores


@pytest.mark.parametrize(
    ("text", "cores"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("400000 100000", 4.0), ("", None), ("max", None)],
)
def test_a_container_quota_is_cores(text: str, cores: float | None) -> None:
    assert quota_cores_in(text) == cores


@pytest.mark.parametrize(
    ("allowed", "cpuinfo", "cpu_max", "cores"),
    [
        pytest.param(8, [cpu(0, i // 2) for i in range(8)], "max 100000", 4, id="hyper-threads taken off"),
        pytest.param(3, [cpu(0, i) for i in range(8)], "", 3, id="affinity"),
        pytest.param(8, [cpu(0, i) for i in range(8)], "250000 100000", 2, id="quota rounds down"),
        pytest.param(8, [cpu(0, i) for i in range(8)], "50000 100000", 1, id="half a core is one"),
        pytest.param(4, [], "", 4, id="nothing known"),
        pytest.param(4, [cpu(0, i) for i in range(4)], "rubbish 0", 4, id="unreadable quota"),
    ],
)
def test_usable_cores_is_the_smallest_of_all_limits(
    monkeypatch: pytest.MonkeyPatch, allowed: int, cpuinfo: list[str], cpu_max: str, cores: int
) -> None:
    files = {"/proc/cpuinfo": "\n\n".join(cpuinfo), "/sys/fs/cgroup/cpu.max": cpu_max}
    monkeypatch.setattr("edgekit.hardware._read", files.__getitem__)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(allowed)), raising=False)
    assert usable_cores() == cores


def test_this_process_has_used_some_memory() -> None:
    assert 1 << 20 < peak_rss_bytes() < 1 << 40


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param(cpu(0, 0) + "\n\n" + cpu(0, 1), "a: strange name", id="x86"),
        pytest.param("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n", "0x41 0xd0b", id="ARM"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_processor_is_named_as_it_names_itself(text: str, name: str) -> None:
    assert processor_name_in(text) == name
    assert processor_name()
