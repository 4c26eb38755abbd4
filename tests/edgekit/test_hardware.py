"""Cores are counted from the system's own words."""

import pytest

from edgekit.hardware import (
    capped_in,
    cgroup_left_in,
    memory_left_bytes,
    peak_rss_bytes,
    physical_cores_in,
    processor_name,
    processor_name_in,
    processor_temperature_in,
    quota_cores_in,
    temperature_c,
    throttled,
    throttled_in,
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


@pytest.mark.parametrize(
    ("flags", "slow"),
    [
        ("0", False),
        ("0x0\n", False),
        ("50000", False),  # it was slowed down once
        ("50005", True),  # and is now: under-voltage, throttled
        ("throttled=0x8", True),
        ("", None),
        ("no", None),
    ],
)
def test_a_raspberry_pi_says_whether_it_is_slowed_down(flags: str, slow: bool | None) -> None:
    assert throttled_in(flags) is slow


@pytest.mark.parametrize(
    ("allowed", "most", "capped"),
    [("1500000\n", "1500000\n", False), ("600000", "1500000", True), ("", "1500000", None), ("x", "y", None)],
)
def test_a_lowered_frequency_limit_is_throttling(allowed: str, most: str, capped: bool | None) -> None:
    assert capped_in(allowed, most) is capped


@pytest.mark.parametrize(
    ("readings", "degrees"),
    [
        pytest.param([("cpu-thermal\n", "48312\n")], 48.312, id="Raspberry Pi"),
        pytest.param([("acpitz", "90000"), ("x86_pkg_temp", "51000")], 51.0, id="the processor's before others"),
        pytest.param([("coretemp", "51000"), ("coretemp", "63000")], 63.0, id="the hottest core"),
        pytest.param([("acpitz", "27800")], 27.8, id="another one if there is no better"),
        pytest.param([("cpu", "-273000"), ("gpu", "40000")], 40.0, id="a sensor that is not there"),
        pytest.param([("cpu", ""), ("cpu", "warm")], None, id="nothing readable"),
        pytest.param([], None, id="no sensor"),
    ],
)
def test_the_processors_temperature_is_chosen_among_sensors(
    readings: list[tuple[str, str]], degrees: float | None
) -> None:
    assert processor_temperature_in(readings) == degrees


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [("1000", "400", 600), ("1000", "1400", 0), ("max\n", "400", None), ("", "", None)],
)
def test_a_container_has_what_its_limit_leaves(limit: str, used: str, left: int | None) -> None:
    assert cgroup_left_in(limit, used) == left


def test_probing_answers_on_any_machine() -> None:
    degrees = temperature_c()
    assert degrees is None or -40 <= degrees <= 150
    assert throttled() in (None, True, False)
    left = memory_left_bytes()
    assert left is None or left >= 0
