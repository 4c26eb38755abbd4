"""How a graph is opened: that no setting changes what it computes, and that its file does not stay in memory."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from device_agent.engine.graphs import loading
from device_agent.engine.graphs.session import open_rows
from edgekit import contract
from edgekit.bundle import open_bundle
from tests.device_agent.bundles import TINY, copy_to

IDS = (5, 9, 33, 7)


def test_packing_on_all_threads_changes_no_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(TINY)
    ours = open_rows(bundle, threads=2).read(0, IDS).copy()
    monkeypatch.setattr(loading, "ENTRIES", {})
    assert np.array_equal(open_rows(bundle, threads=2).read(0, IDS), ours)


@pytest.mark.parametrize("name", loading.ENTRIES)
def test_onnxruntime_knows_the_names_of_the_settings(name: str) -> None:
    # It takes any name and ignores those that it does not know; a misspelt one would only be slow.
    import onnxruntime

    (library,) = Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*")
    assert name.encode() in library.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="hints are for Linux")
def test_pages_of_the_weights_file_do_not_stay(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    rows = open_rows(open_bundle(folder), threads=1)
    smaps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = re.findall(rf"{re.escape(str(folder / contract.DATA_FILE))}\n(?:.*\n){{3}}Rss: +(\d+) kB", smaps)
    assert not any(int(size) for size in found)
    assert rows.read(0, IDS).shape == (1, open_bundle(folder).manifest.arch.vocab)
