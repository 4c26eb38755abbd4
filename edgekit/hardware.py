"""What this machine is. Parsing is pure; probing reads /proc, /sys and the scheduler."""

import contextlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path


def physical_cores_in(cpuinfo: str) -> int | None:
    """Distinct (physical id, core id) pairs of a Linux /proc/cpuinfo; None where it does not say (ARM)."""
    cores: set[tuple[str, str]] = set()
    for section in cpuinfo.split("\n\n"):
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in section.splitlines())}
        if "core id" in facts:
            cores.add((facts.get("physical id", "0"), facts["core id"]))
    return len(cores) or None


def quota_cores_in(cpu_max: str) -> float | None:
    """Cores that a cgroup v2 `cpu.max` file allows ("150000 100000" is 1.5); None for no limit."""
    quota, _, period = cpu_max.strip().partition(" ")
    if quota == "max" or not period:
        return None
    return int(quota) / int(period)


def usable_cores() -> int:
    """Physical cores that this process may use: hyper-threads, affinity and container quota taken off; at least 1.

    A second hardware thread per core shares the same multipliers, so it does not help matrix products.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = physical_cores_in(_read("/proc/cpuinfo")) or allowed
    quota = None
    with contextlib.suppress(ValueError):
        quota = quota_cores_in(_read("/sys/fs/cgroup/cpu.max"))
    return max(1, min(allowed, physical, int(quota) if quota else allowed))


def processor_name_in(cpuinfo: str) -> str:
    """What a Linux /proc/cpuinfo calls the processor: its model name, or on ARM its makers' numbers; "" for neither."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        facts.setdefault(key, value)
    return facts.get("model name") or " ".join(
        facts[key] for key in ("CPU implementer", "CPU part", "CPU revision") if key in facts
    )


def processor_name() -> str:
    """A name by which measurements of this processor are remembered."""
    return processor_name_in(_read("/proc/cpuinfo")) or platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def peak_rss_bytes() -> int:
    """Largest resident set that this process has had; 0 where the system does not tell."""
    # Linux first: there getrusage also counts the parent's memory up to the exec that began this process.
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak) * (1 if os.uname().sysname == "Darwin" else 1024)
    return 0


def instruction_sets_in(cpuinfo: str) -> frozenset[str]:
    """Names of instruction sets as Linux's /proc/cpuinfo lists them: `flags` on x86, `Features` on ARM."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def instruction_sets() -> frozenset[str]:
    """Those of this processor; empty where the system does not tell."""
    return instruction_sets_in(_read("/proc/cpuinfo"))


def cgroup_left_in(limit: str, used: str) -> int | None:
    """Bytes that a cgroup v2 (`memory.max`, `memory.current`) leaves to its processes; None for no limit."""
    if not limit.strip().isdigit() or not used.strip().isdigit():
        return None
    return max(0, int(limit) - int(used))


_THROTTLED_NOW = 0b1111
"""Of get_throttled: under-voltage, frequency capped, throttled, soft temperature limit (Raspberry Pi documentation)."""

_CPU_ZONES = ("cpu", "x86_pkg_temp", "soc", "package", "coretemp", "k10temp", "zenpower", "tctl", "tdie")
_USUAL_C = (-40.0, 150.0)


def throttled_in(flags: str) -> bool | None:
    """Whether a Raspberry Pi is slowed down at this moment, by its firmware's word ("50005"); None for no word.

    The upper bits tell what happened since it was started, and do not count.
    """
    try:
        return bool(int(flags.strip().removeprefix("throttled="), 16) & _THROTTLED_NOW)
    except ValueError:
        return None


def capped_in(allowed: str, most: str) -> bool | None:
    """Whether cpufreq's `scaling_max_freq` was lowered below the processor's `cpuinfo_max_freq`; None: no word."""
    if not allowed.strip().isdigit() or not most.strip().isdigit():
        return None
    return int(allowed) < int(most)


def processor_temperature_in(readings: Iterable[tuple[str, str]]) -> float | None:
    """Degrees Celsius of the processor, of sensors' (name, thousandths of a degree) as Linux writes them.

    The hottest of those that the processor's name is on; of all, where it is on none; None without any.
    """
    found: list[tuple[bool, float]] = []
    for name, text in readings:
        if text.strip().removeprefix("-").isdigit():
            degrees = int(text) / 1000
            if _USUAL_C[0] <= degrees <= _USUAL_C[1]:  # a sensor that is not there reads as nonsense
                found.append((any(part in name.strip().lower() for part in _CPU_ZONES), degrees))
    return max(found)[1] if found else None


def temperature_c() -> float | None:
    """The processor's temperature as the kernel knows it: thermal zones first, then hardware monitors."""
    zones = [(_read(f"{zone}/type"), _read(f"{zone}/temp")) for zone in _folders("/sys/class/thermal", "thermal_zone*")]
    if (degrees := processor_temperature_in(zones)) is not None:
        return degrees
    monitors = [
        (_read(f"{monitor}/name"), _read(str(sensor)))
        for monitor in _folders("/sys/class/hwmon", "hwmon*")
        for sensor in _folders(str(monitor), "temp*_input")
    ]
    return processor_temperature_in(monitors)


def throttled() -> bool | None:
    """Whether the processor may not run as fast as it could; None where nobody says."""
    firmware = throttled_in(_read("/sys/devices/platform/soc/soc:firmware/get_throttled"))
    if firmware is not None:
        return firmware
    policies = _folders("/sys/devices/system/cpu/cpufreq", "policy*")
    words = [capped_in(_read(f"{each}/scaling_max_freq"), _read(f"{each}/cpuinfo_max_freq")) for each in policies]
    known = [word for word in words if word is not None]
    return any(known) if known else None


def memory_left_bytes() -> int | None:
    """What the container's limit leaves; None without a limit."""
    return cgroup_left_in(_read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current"))


def _folders(folder: str, pattern: str) -> list[Path]:
    try:
        return sorted(Path(folder).glob(pattern))
    except OSError:
        return []
