from pathlib import Path

import pytest

from device_agent.bench import bandwidth
from device_agent.bench.bandwidth import array_bytes_for, last_cache_bytes, measure_bandwidth


@pytest.mark.parametrize(
    ("cache", "expected"),
    [(0, 256 << 20), (32 << 20, 256 << 20), (100 << 20, 400 << 20), (1 << 40, 1 << 30)],
    ids=["unknown", "small", "large", "absurd"],
)
def test_arrays_are_larger_than_the_cache_and_fit_a_board(cache: int, expected: int) -> None:
    assert array_bytes_for(cache) == expected


def test_the_largest_cache_counts(tmp_path: Path) -> None:
    for number, size in enumerate(("32K", "512K", "32M", "many", "7G")):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(f"{size}\n", encoding="ascii")
    assert last_cache_bytes(tmp_path) == 32 << 20
    assert last_cache_bytes(tmp_path / "missing") == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_bytes_are_divided_by_the_best_time(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.5, 0.25, *[1.0] * 6, 0.5, 0.125, *[1.0] * 6])
    monkeypatch.setattr(bandwidth, "_timed", lambda work: (work(), next(times))[1])
    found = measure_bandwidth(threads, array_bytes=24_000)
    assert found.read_bytes_per_s == 24_000 / 0.25
    assert found.copy_bytes_per_s == 2 * 24_000 / 0.125
    assert found.threads == threads


def test_every_thread_copies_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    monkeypatch.setattr(bandwidth, "_copy", lambda source, target: copied.append((len(source), len(target))))
    measure_bandwidth(2, array_bytes=1600)
    assert copied == [(100, 100)] * 16
