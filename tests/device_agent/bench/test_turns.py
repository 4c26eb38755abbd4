"""Real processes, the committed tiny bundles."""

import shutil
from pathlib import Path

import pytest

from device_agent.bench import turns
from device_agent.bench.bandwidth import Bandwidth
from device_agent.bench.plan import Decode, Plan
from device_agent.bench.weights import bytes_per_token
from edgekit import contract
from edgekit.bundle import read_manifest
from edgekit.errors import BundleError, UsageError
from tests.device_agent.bundles import ENCODER, INT8, TINY, copy_to, seal

PLAN = Plan(prompts=(8, 300), decodes=(Decode(8), Decode(0)), decode_tokens=3)


@pytest.fixture(autouse=True)
def _quick_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([3.0, 5.0, 4.0])
    monkeypatch.setattr(turns, "measure_bandwidth", lambda threads: Bandwidth(next(speeds), 1.0, threads))


def test_bundles_take_turns() -> None:
    said: list[str] = []
    found = turns.take_turns([TINY, INT8], PLAN, threads=1, repetitions=2, step=said.append)
    assert said[:4] == [f"{what} {folder.name}" for what in ("loading", "warming up") for folder in (TINY, INT8)]
    assert said[4:7] == ["reading memory", f"measuring {TINY.name}, 1 of 2", f"measuring {INT8.name}, 1 of 2"]
    assert len(said) == turns.steps(2, 2)
    assert [each.folder for each in found.measured] == [TINY, INT8]
    assert [len(each.rounds) for each in found.measured] == [2, 2]
    assert found.bandwidth.read_bytes_per_s == 5.0


def test_a_worker_says_what_it_loaded() -> None:
    (found,) = turns.take_turns([TINY], PLAN, threads=1, repetitions=1, step=lambda _: None).measured
    assert (found.facts.name, found.facts.threads, found.facts.context_tokens) == ("tiny-llama", 1, 2048)
    assert 0 < found.facts.rss_start_bytes < found.facts.rss_loaded_bytes
    assert found.facts.load_s > 0
    assert found.facts.weight_bytes_per_token == bytes_per_token(read_manifest(TINY))


def test_a_bundle_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    shutil.copy(INT8 / contract.MODEL_FILE, folder / contract.MODEL_FILE)
    seal(folder)
    with pytest.raises(BundleError, match="not the graph that") as raised:
        turns.take_turns([folder], PLAN, threads=1, repetitions=1, step=lambda _: None)
    assert raised.value.path == str(folder)


@pytest.mark.parametrize(
    ("folder", "plan", "words"),
    [
        (ENCODER, PLAN, "edgekit embed"),
        (TINY, Plan(prompts=(2048,), decodes=(Decode(2048),)), "context is 2048"),
    ],
    ids=["encoder", "too long"],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(folder: Path, plan: Plan, words: str) -> None:
    said: list[str] = []
    with pytest.raises(UsageError, match=words):
        turns.take_turns([folder], plan, threads=1, repetitions=1, step=said.append)
    assert not said


def test_a_worker_that_ends_is_an_error() -> None:
    with turns.started(TINY, threads=1, most_rows=1, prefill="int4") as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(BundleError, match="has ended"):
            worker.round(PLAN)


def test_no_process_is_left_behind() -> None:
    with pytest.raises(KeyError), turns.started(TINY, threads=1, most_rows=1, prefill="int4") as worker:
        raise KeyError
    assert worker._process.poll() is not None
