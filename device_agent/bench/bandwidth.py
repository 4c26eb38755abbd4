"""How fast this machine's memory can be read: the limit of decoding, which reads every weight once a token.

As STREAM (McCalpin 1995) does, arrays are far larger than the last cache, all threads work at once, and the best of
several passes counts: what interferes only ever makes a pass slower. Reading is measured by the maximum of 64-bit
integers, whose arithmetic is cheap enough to wait for memory on every CPU that was tried (two cores of an AMD Zen 3:
maximum of int64 38 GB/s, sum of int64 36, dot product of float32 33, sum of float32 28). Copying counts both ways.
"""

import contextlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_PASSES = 8
_LEAST_BYTES, _MOST_BYTES = 256 << 20, 1 << 30
_TIMES_THE_CACHE = 4


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second, of `threads` threads together. A copy counts what it reads and what it writes."""

    read_bytes_per_s: float
    copy_bytes_per_s: float
    threads: int


def measure_bandwidth(threads: int, *, array_bytes: int | None = None) -> Bandwidth:
    """Read and copy `array_bytes` (default: by the size of the last cache) with `threads` threads. Under a second."""
    total = array_bytes or array_bytes_for(last_cache_bytes())
    per_thread = max(1, total // threads // 8)
    sources = [np.ones(per_thread, np.int64) for _ in range(threads)]
    targets = [np.zeros(per_thread, np.int64) for _ in range(threads)]
    moved = 8 * per_thread * threads
    with ThreadPoolExecutor(threads) as pool:

        def best(work: Callable[[int], object]) -> float:
            return min(_timed(lambda: list(pool.map(work, range(threads)))) for _ in range(_PASSES))

        read_s = best(lambda at: sources[at].max())
        copy_s = best(lambda at: _copy(sources[at], targets[at]))
    return Bandwidth(moved / read_s, 2 * moved / copy_s, threads)


def array_bytes_for(cache_bytes: int) -> int:
    """Large enough that a cache holds little of it, small enough for a board with little memory."""
    return min(max(_LEAST_BYTES, _TIMES_THE_CACHE * cache_bytes), _MOST_BYTES)


def last_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Size of the CPU's largest cache as Linux tells it; 0 where it does not."""
    found = [0]
    with contextlib.suppress(OSError):
        for path in folder.glob("index*/size"):
            match = re.fullmatch(r"(\d{1,9})([KM])", path.read_text(encoding="ascii", errors="replace").strip())
            if match is not None:
                found.append(int(match[1]) << {"K": 10, "M": 20}[match[2]])
    return max(found)


def _copy(source: npt.NDArray[np.int64], target: npt.NDArray[np.int64]) -> None:
    np.copyto(target, source)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
