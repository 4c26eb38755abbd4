"""What this machine feels like at the moment: memory, disk, temperature, throttling, battery. None where nobody knows.

Only what psutil is needed for is here; the kernel's own words are read in edgekit/hardware.py.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgekit import hardware


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the machine (or of the container, if that has less), and of this process."""

    total_bytes: int
    available_bytes: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Disk:
    """Of the file system that a folder is on."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Battery:
    """`percent` from 0 to 100; `plugged` is whether it need not last."""

    percent: float
    plugged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """All of it at one moment."""

    memory: Memory
    disk: Disk | None
    temperature_c: float | None
    throttled: bool | None
    battery: Battery | None


def read(folder: Path) -> Readings:
    """Ask every sensor; `folder` is on the disk that counts."""
    return Readings(
        memory=memory(),
        disk=disk(folder),
        temperature_c=hardware.temperature_c(),
        throttled=hardware.throttled(),
        battery=battery(),
    )


def available_memory_bytes() -> int:
    """What more this process may take without others having to leave memory."""
    available, left = int(psutil.virtual_memory().available), hardware.memory_left_bytes()
    return available if left is None else min(available, left)


def memory() -> Memory:
    """As it is now."""
    total = int(psutil.virtual_memory().total)
    return Memory(total, min(total, available_memory_bytes()), int(psutil.Process().memory_info().rss))


def disk(folder: Path) -> Disk | None:
    """Of the nearest folder above that there is; None if it cannot be read."""
    for place in (folder, *folder.absolute().parents):
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        return Disk(usage.total, usage.free)
    return None


def battery() -> Battery | None:
    """None for a machine without one."""
    try:
        found = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    except (OSError, RuntimeError, ValueError):  # drivers lie in many ways
        return None
    if found is None:
        return None
    return Battery(percent=min(100.0, max(0.0, float(found.percent))), plugged=found.power_plugged is not False)
