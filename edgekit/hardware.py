"""What this machine is. Parsing is pure; probing reads /proc, /sys and the scheduler."""

import contextlib
import os
import platform
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
