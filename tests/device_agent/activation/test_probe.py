"""Releases that are really started, in a process of their own: programs that misbehave, and the committed bundles."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from device_agent.activation import Verdict
from device_agent.activation.probe import ChildProbe, run
from device_agent.activation.trial import Unhealthy, examined
from device_agent.releases.records import Installed
from device_agent.releases.store import Store
from edgekit import contract
from edgekit.errors import CorruptBundle, Refused, ServerError
from edgekit.release.manifest import HealthFloor
from tests.device_agent.bundles import ADAPTABLE, CONCAT, ENCODER, INT8, TINY, WARM, copy_to, edit, seal
from tests.releases import install_folder

PATIENT = HealthFloor(probe_s=120.0)
BRIEF = HealthFloor(probe_s=0.3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def installed(store: Store, folder: Path) -> Installed:
    found = store.find(install_folder(store, folder, sequence=1))
    assert found is not None
    return found


def probe(
    code: str | None = None, *, base: Path | None = None, available: Callable[[], int] = lambda: 1 << 40
) -> ChildProbe:
    if code is None:
        return ChildProbe(lambda _: base, available=available)
    return ChildProbe(lambda _: base, available=available, program=(sys.executable, "-c", code))


# --- programs that misbehave ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "floor", "reason"),
    [
        ("import os; os.abort()", PATIENT, "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", PATIENT, "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", PATIENT, "no memory left"),
        ("raise MemoryError('too large')", PATIENT, "code 1: MemoryError: too large"),
        ("import time; time.sleep(1000)", BRIEF, "did not end within"),
        ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)", BRIEF, "did not end"),
        ("while True: pass", BRIEF, "did not end within"),
        ("print('all is well')", PATIENT, "without a report"),
        ("import sys; sys.stdout.write('x' * 10_000_000)", PATIENT, "without a report"),
        ("import sys\nwhile True: sys.stdout.write('x' * 100_000)", BRIEF, "did not end within"),
        ("import sys\nwhile True: sys.stderr.write('x' * 100_000)", BRIEF, "did not end within"),
        ("import os; os.close(1); os.close(2)", PATIENT, "without a report"),
        ('print(\'{"golden":4,"right":1}\')', PATIENT, "1 of 4 golden answers"),
        ("print('{\"decode_tokens_per_s\":1.5}')", HealthFloor(decode_tokens_per_s=2.0), "1.5 tokens a second"),
    ],
)
def test_f1_a_program_that_does_anything_but_its_work_has_failed(
    store: Store, code: str, floor: HealthFloor, reason: str
) -> None:
    verdict = probe(code)(installed(store, TINY), floor)
    assert not verdict.ok
    assert reason in verdict.reason


def test_children_of_a_program_that_hangs_end_with_it(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(1000)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\nchild.wait()"
    )
    ended = run((sys.executable, "-I", "-S", "-c", code), seconds=5.0)
    assert ended.code is None
    pid = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        os.sched_yield()


def test_a_program_that_cannot_be_started_is_our_problem_and_not_the_release_s(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="cannot be tried"):
        ChildProbe(lambda _: None, program=(str(tmp_path / "nothing"),))(installed(store, TINY), PATIENT)


def test_memory_that_is_not_there_puts_a_trial_off_after_room_was_made(store: Store) -> None:
    asked = []
    one = installed(store, TINY)
    full = ChildProbe(lambda _: None, make_room=lambda: asked.append("once"), available=lambda: 1)
    with pytest.raises(Refused, match=r"MB of memory for its trial"):
        full(one, PATIENT)
    assert asked == ["once"]
    free = iter((1, 1 << 40))
    roomy = ChildProbe(
        lambda _: None,
        make_room=lambda: asked.append("twice"),
        available=lambda: next(free),
        program=(sys.executable, "-c", "print('{}')"),
    )
    assert roomy(one, PATIENT).ok
    assert asked == ["once", "twice"]


# --- bundles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [TINY, INT8, ADAPTABLE, CONCAT, ENCODER], ids=lambda folder: folder.name)
def test_a_whole_bundle_passes_and_is_measured(store: Store, folder: Path) -> None:
    verdict = probe()(installed(store, folder), PATIENT)
    assert verdict.ok, verdict.reason
    assert verdict.figures["agreement"] == 1.0
    assert verdict.figures["rss_bytes"] > 10_000_000
    assert (verdict.figures.get("decode_tokens_per_s", 0.0) > 0) is (folder != ENCODER)


def test_an_adapter_passes_beside_its_base(store: Store) -> None:
    verdict = probe(base=ADAPTABLE)(installed(store, WARM), PATIENT)
    assert (verdict.ok, verdict.figures["agreement"]) == (True, 1.0), verdict.reason


def test_an_adapter_waits_for_its_base(store: Store, tmp_path: Path) -> None:
    one = installed(store, WARM)
    with pytest.raises(Refused, match="stands beside tiny-llama, which is not there yet"):
        probe(base=None)(one, PATIENT)
    other = copy_to(tmp_path, ADAPTABLE)
    _overwrite(other / contract.DATA_FILE, 7.0)
    seal(other)
    with pytest.raises(Refused, match="was made for tiny-llama"):
        probe(base=other)(one, PATIENT)


def test_the_floors_are_those_of_the_release(store: Store) -> None:
    one = installed(store, TINY)
    small = HealthFloor(rss_bytes=1_000_000)
    assert "MB of memory" in probe()(one, small).reason
    fast = HealthFloor(decode_tokens_per_s=1e9)
    assert "tokens a second" in probe()(one, fast).reason


def _wrong_tokens(folder: Path) -> None:
    def change(manifest: dict[str, object]) -> None:
        for golden in manifest["golden"]:  # type: ignore[attr-defined]
            golden["tokens"] = [(token + 1) % 320 for token in golden["tokens"]]

    edit(folder, change)


def _overwrite(path: Path, value: float) -> None:
    """Every weight another number, and the file as long as it was."""
    count = path.stat().st_size // 4
    path.write_bytes(np.full(count, value, np.float32).tobytes() + b"\0" * (path.stat().st_size % 4))


def _no_numbers(folder: Path) -> None:
    _overwrite(folder / contract.DATA_FILE, float("nan"))
    seal(folder)


def _no_graph(folder: Path) -> None:
    (folder / contract.MODEL_FILE).write_bytes(b"\x08\x08" * 100)
    seal(folder)


def _no_template(folder: Path) -> None:
    (folder / contract.TOKENIZER_FILE).write_text("{}")
    seal(folder)


def _long_prompt(folder: Path) -> None:
    def change(manifest: dict[str, object]) -> None:
        manifest["golden"] = [{"prompt": [5] * 3_000, "tokens": [1], "sure": 1}]

    edit(folder, change)


def _rotten(folder: Path) -> None:
    path = folder / contract.DATA_FILE
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_wrong_tokens, "0 of 17 golden answers come out"),
        (_no_numbers, "no numbers"),
        (_no_graph, ""),
        (_no_template, "tokenizer.json"),
        (_long_prompt, "golden prompt cannot be read"),
        (_rotten, "SHA-256"),
    ],
)
def test_f1_a_bundle_that_does_not_work_fails_for_good(
    store: Store, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    folder = copy_to(tmp_path)
    damage(folder)
    verdict = probe()(installed(store, folder), PATIENT)
    assert (verdict.ok, verdict.final) == (False, True)
    assert reason in verdict.reason


def test_what_is_no_bundle_fails_before_anything_is_started(store: Store, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    one = installed(store, folder)
    with store.repairing(one):
        (one.folder / contract.MANIFEST_FILE).write_text("{")
    started = ChildProbe(lambda _: None, program=(str(tmp_path / "nothing"),))
    assert "bundle.json" in started(one, PATIENT).reason


# --- what the program does, in this process ---------------------------------------------------


def test_answers_are_compared_after_the_golden_ones_so_that_one_difference_counts_once(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    sure = 0

    def change(manifest: dict[str, object]) -> None:
        nonlocal sure
        golden = manifest["golden"][0]  # type: ignore[index]
        sure = golden["sure"] = len(golden["tokens"])
        golden["tokens"][-1] = (golden["tokens"][-1] + 1) % 320
        manifest["golden"] = [golden]

    edit(folder, change)
    report = examined(folder, None)
    assert (report.golden, report.right) == (sure, sure - 1)


def test_a_bundle_without_golden_prompts_is_computed_with_all_the_same(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    edit(folder, lambda manifest: manifest.update(golden=[]))
    report = examined(folder, None)
    assert (report.golden, report.problem) == (0, "")
    assert report.decode_tokens_per_s
    _no_numbers(folder)
    with pytest.raises(Unhealthy, match="no numbers"):
        examined(folder, None)


def test_an_encoder_whose_vectors_are_others_has_none_right(tmp_path: Path) -> None:
    folder = copy_to(tmp_path, ENCODER)

    def change(manifest: dict[str, object]) -> None:
        for golden in manifest["embedding"]["golden"]:  # type: ignore[index]
            golden["vector"] = [-value for value in golden["vector"]]

    edit(folder, change)
    report = examined(folder, None)
    assert (report.golden, report.right) == (3, 0)


def test_an_adapter_that_is_damaged_fails(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(WARM, tmp_path / "warm"))
    manifest = json.loads((folder / contract.ADAPTER_MANIFEST_FILE).read_bytes())
    manifest["files"][0]["sha256"] = "0" * 64
    (folder / contract.ADAPTER_MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CorruptBundle, match="SHA-256"):
        examined(ADAPTABLE, folder)


def test_a_trial_ends_when_who_started_it_does(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import threading, time\\nfrom device_agent.activation.trial import _end_with_input\\n"
        "threading.Thread(target=_end_with_input, daemon=True).start()\\nprint(flush=True)\\ntime.sleep(1000)'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "child.stdout.readline()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\nos._exit(0)"
    )
    assert run((sys.executable, "-c", code), seconds=60.0).code == 0
    pid = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        os.sched_yield()


def test_a_verdict_is_a_plain_record() -> None:
    assert Verdict(ok=True) == Verdict(ok=True, reason="", figures={}, final=True)
