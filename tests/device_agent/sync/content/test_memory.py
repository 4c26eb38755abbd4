"""An update of any size takes as much memory as one chunk of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import ROOT

PROGRAM = Path(__file__).with_name("big_update.py")
MIB = 1 << 20


@pytest.mark.parametrize("size_mib", [256, pytest.param(2048, marks=pytest.mark.long)])
def test_e08_a_large_update_by_differences_takes_less_than_64_mib(tmp_path: Path, size_mib: int) -> None:
    """balena-os #503: devices with 1 GB of memory rebooted in circles because applying a difference took it all."""
    command = [sys.executable, str(PROGRAM), str(size_mib), str(tmp_path)]
    answer = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    )
    peak_bytes, sent_bytes, file_bytes = map(int, answer.stdout.split())
    assert file_bytes > size_mib * MIB
    assert size_mib * MIB // 4 < sent_bytes < file_bytes // 3
    assert peak_bytes < 64 * MIB
