"""Facts of a machine to findings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.doctor.machine import BundleFacts, MachineFacts, bundles_in, findings, probe
from tests.device_agent.bundles import copy_to

GOOD = MachineFacts(
    python=(3, 12),
    onnxruntime="1.32.0",
    architecture="x86_64",
    instructions=frozenset({"avx2", "avx512_vnni"}),
    memory_total_bytes=8_000_000_000,
    memory_available_bytes=4_000_000_000,
    disk_free_bytes=50_000_000_000,
    home=Path("home"),
    writable=True,
    token_mode=0o600,
    now=2_000_000_000.0,
    built=1_900_000_000.0,
    bundles=(BundleFacts(name="tiny", needed_bytes=1_000_000_000),),
)


def test_a_good_machine_is_all_green() -> None:
    assert {finding.status for finding in findings(GOOD)} == {"green"}
    assert not any(finding.hint for finding in findings(GOOD))


@pytest.mark.parametrize(
    ("changed", "check", "status"),
    [
        ({"python": (3, 10)}, "python", "red"),
        ({"onnxruntime": ""}, "onnxruntime", "red"),
        ({"onnxruntime": "1.30.2"}, "onnxruntime", "red"),
        ({"instructions": frozenset({"sse4_2"})}, "instruction sets", "red"),
        ({"architecture": "riscv64"}, "instruction sets", "amber"),
        ({"bundles": (BundleFacts(name="tiny", needed_bytes=5_000_000_000),)}, "bundle tiny", "amber"),
        ({"bundles": (BundleFacts(name="tiny", needed_bytes=9_000_000_000),)}, "bundle tiny", "red"),
        ({"bundles": (BundleFacts(name="tiny", problem="it is damaged"),)}, "bundle tiny", "red"),
        ({"now": 10.0}, "clock", "red"),
        ({"writable": False}, "folder", "red"),
        ({"disk_free_bytes": 100}, "disk", "amber"),
        ({"token_mode": 0o644}, "admin token", "red"),
    ],
)
def test_what_is_wrong_is_found_and_says_what_to_do(changed: dict[str, Any], check: str, status: str) -> None:
    (bad,) = [finding for finding in findings(replace(GOOD, **changed)) if finding.status != "green"]
    assert (bad.check, bad.status) == (check, status)
    assert bad.hint


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": "aarch64", "instructions": frozenset({"asimd", "asimddp"})},
        {"architecture": "arm64", "instructions": frozenset()},
        {"instructions": frozenset({"avx2"})},
        {"writable": None, "token_mode": None},
        {"bundles": ()},
    ],
)
def test_what_nobody_can_change_is_no_fault(changed: dict[str, Any]) -> None:
    assert {finding.status for finding in findings(replace(GOOD, **changed))} == {"green"}


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    good, bad = tmp_path / "store" / "good", tmp_path / "store" / "bad"
    good.parent.mkdir()
    copy_to(good.parent)
    bad.mkdir()
    (bad / "bundle.json").write_text("{}", encoding="utf-8")
    facts = probe(tmp_path / "new" / "home", bundles_in(tmp_path / "store"), now=2e9)
    assert facts.writable is None
    assert facts.onnxruntime
    assert [bool(bundle.problem) for bundle in facts.bundles] == [True, False]
    assert facts.bundles[1].needed_bytes > 0
    assert not (tmp_path / "new").exists()
