from pathlib import Path

import pytest

from device_agent.bench.energy import EnergyMeter


def zone(folder: Path, name: str, microjoules: str, most: int = 1000) -> Path:
    path = folder / name
    path.mkdir()
    (path / "energy_uj").write_text(microjoules, encoding="ascii")
    (path / "max_energy_range_uj").write_text(f"{most}\n", encoding="ascii")
    return path / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    counters = [zone(tmp_path, name, "100\n") for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0")]
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    assert before == (100, 100)
    for counter, value in zip(counters, (600, 300, 900), strict=True):
        counter.write_text(f"{value}\n", encoding="ascii")
    assert meter.joules_since(before) == pytest.approx(700e-6)


def test_a_counter_that_started_over_goes_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "900", most=1000)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    counter.write_text("50", encoding="ascii")
    assert meter.joules_since(before) == pytest.approx(150e-6)


@pytest.mark.parametrize(
    "text", ["", "many", "-5", "\u00b2", "9" * 400], ids=["empty", "word", "minus", "power", "long"]
)
def test_what_is_no_counter_is_not_known(tmp_path: Path, text: str) -> None:
    zone(tmp_path, "intel-rapl:0", "5").write_text(text, encoding="utf-8")
    assert EnergyMeter(tmp_path).read() is None


def test_without_counters_nothing_is_known_and_nothing_fails(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path / "missing")
    assert meter.read() is None
    assert meter.joules_since(None) is None
    assert meter.joules_since((1,)) is None


def test_a_counter_that_vanishes_makes_the_difference_unknown(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "5")
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    counter.unlink()
    assert meter.joules_since(before) is None
