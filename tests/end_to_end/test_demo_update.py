"""The demo's second act with the real `edgekit`: a tiny bundle instead of the demo's, which takes minutes to export."""

import json
import shutil
import sys
from pathlib import Path

import demo_agent
import demo_update
import pytest

from tests.device_agent.bundles import TINY, edit
from tests.imports import ROOT


def test_a_running_agent_takes_what_is_good_and_refuses_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    first, second = (Path(shutil.copytree(TINY, tmp_path / name)) for name in ("tiny", "tiny-v2"))
    edit(first, lambda manifest: manifest.update(version="1"))
    edit(second, lambda manifest: manifest.update(version="2"))
    act = demo_update.Act(tmp_path / "act", tmp_path / "nobody-exports-this.gguf", first, sys.stderr)
    with act.played(0) as (_, told):
        assert told["url"].startswith("http://127.0.0.1:")
    name = json.loads((TINY / "bundle.json").read_text(encoding="utf-8"))["name"]
    versions = told["versions"]
    assert [one["release"] for one in versions] == [f"{name}-{version}" for version in (1, 2, 3, 4)]
    assert [one["answers"] for one in versions] == [f"{name}-{version}" for version in (1, 2, 2, 2)]
    assert "golden answers come out" in versions[2]["refused"]
    assert "timestamp was signed by 0/1 keys" in versions[3]["refused"]
    assert len({one["answer"] for one in versions}) == 1  # the same weights, whatever the number
    with pytest.raises(demo_agent.DemoError):
        demo_agent.ask(told["url"], "Still there?", sys.stderr)
