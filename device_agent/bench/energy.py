"""Joules that the processor used, where Linux counts them (RAPL, under /sys/class/powercap)."""

from collections.abc import Iterator
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Counters of all processor packages together.

    Everything on the machine is in them, not this process alone. Many systems let only the administrator read them.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        # "intel-rapl:0" is a package (also of AMD's), "intel-rapl:0:1" a part of it that is counted in it already.
        self._zones = sorted(path for path in _zones(folder) if path.name.count(":") == 1)

    def read(self) -> tuple[int, ...] | None:
        """Microjoules by package; None where there is no counter or none that may be read."""
        values = tuple(_number(zone / "energy_uj") for zone in self._zones)
        known = tuple(value for value in values if value is not None)
        return known if known and len(known) == len(values) else None

    def joules_since(self, before: tuple[int, ...] | None) -> float | None:
        """Joules since a `read`; None if either cannot be read. A counter that started over is understood once."""
        now = self.read()
        if before is None or now is None:
            return None
        ranges = [_number(zone / "max_energy_range_uj") or 0 for zone in self._zones]
        used = [b - a if b >= a else b - a + most for a, b, most in zip(before, now, ranges, strict=True)]
        return sum(used) / 1e6


def _zones(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.glob("intel-rapl:*")
    except OSError:
        return


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() and len(text) <= 20 else None
