"""The demo's second act against a made-up `edgekit`: what is done, and what is left if it ends early."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import demo
import demo_agent
import demo_update
import psutil
import pytest

# A repository is one signed file that names a release; a release is good if its weights are all "w".
FAKE_EDGEKIT = """
import hashlib, http.server, json, os, pathlib, shutil, sys, time
arguments = [one for one in sys.argv[1:] if one != "--json"]
verb = " ".join(arguments[:2]) if arguments[0] == "repo" else arguments[0]
here, home = pathlib.Path(__file__).parent, pathlib.Path(os.environ.get("EDGEKIT_HOME", "nowhere"))
with (here / "calls").open("a") as calls:
    calls.write(verb + "\\n")
times = (here / "calls").read_text().splitlines().count(verb)
if (here / "stuck").exists() and (here / "stuck").read_text() == f"{verb} {times}":
    (here / "stuck").unlink()
    time.sleep(600)
if (here / "broken").exists() and (here / "broken").read_text() == verb:
    sys.exit(72)

def after(option):
    return pathlib.Path(arguments[arguments.index(option) + 1])

def signed(version, release):
    said = {"version": version, "release": release}
    return json.dumps({"signed": said, "signature": hashlib.sha256(json.dumps(said).encode()).hexdigest()})

if verb == "export":
    folder = after("-o")
    folder.mkdir()
    (folder / "model.onnx.data").write_bytes(b"w" * 64)
    version = str(after("--version")) if "--version" in arguments else "1"
    files = [{"path": "model.onnx.data", "sha256": hashlib.sha256(b"w" * 64).hexdigest()}]
    (folder / "bundle.json").write_text(json.dumps({"name": "fake", "version": version, "files": files}))
elif verb == "repo init":
    repository = pathlib.Path(arguments[2])
    (repository / "metadata").mkdir(parents=True)
    (repository / "metadata" / "timestamp.json").write_text(signed(0, ""))
    print("{}")
elif verb == "publish":
    assert os.environ["EDGEKIT_KEY_PASSPHRASE"]
    bundle, repository = pathlib.Path(arguments[1]), after("--repo")
    facts = json.loads((bundle / "bundle.json").read_text())
    weights = (bundle / "model.onnx.data").read_bytes()
    assert facts["files"][0]["sha256"] == hashlib.sha256(weights).hexdigest()
    release = facts["name"] + "-" + facts["version"]
    shutil.copytree(bundle, repository / release)
    (repository / "metadata" / "timestamp.json").unlink()
    (repository / "metadata" / "timestamp.json").write_text(signed(int(facts["version"]), release))
    print(json.dumps({"release": release}))
elif verb == "repo provision":
    after("-o").write_text(json.dumps({"url": str(after("--url"))}))
    print("{}")
elif verb == "enrol":
    home.mkdir()
    shutil.copy(arguments[1], home / "trusted")
    (home / "admin-token").write_text("secret\\n")
    print("{}")
elif verb == "sync":
    print("{}")
elif verb == "serve":
    server = pathlib.Path(json.loads((home / "trusted").read_text())["url"])
    now = {"active": None, "refusals": {}, "history": []}

    def look():
        told = json.loads((server / "metadata" / "timestamp.json").read_text())
        release = told["signed"]["release"]
        if told["signature"] != hashlib.sha256(json.dumps(told["signed"]).encode()).hexdigest():
            now["history"].append({"at": time.time(), "reason": "The repository is not to be trusted: forged"})
        elif (server / release / "model.onnx.data").read_bytes() != b"w" * 64:
            now["refusals"][release] = "it talks nonsense"
        else:
            now["active"] = release

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            look()
            if self.path == "/v1/models":
                name, version = now["active"].split("-")
                version = "7" if (here / "stubborn").exists() else version
                return self.answer({"data": [{"id": name, "meta": {"version": version}}]})
            if self.headers["Authorization"] != "Bearer secret":
                return self.answer({"error": "no"}, 403)
            refusals = [{"release": release, "reason": reason} for release, reason in now["refusals"].items()]
            lines = [{"active": now["active"], "trial": None}]
            self.answer({"lines": lines, "refusals": refusals, "history": now["history"]})
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            event = {"choices": [{"delta": {"content": "Paris."}}]}
            event["timings"] = {"predicted_per_second": 8, "prompt_per_second": 9}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\ndata: [DONE]\\n\\n")
        def answer(self, found, status=200):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())
        def log_message(self, *_):
            pass
    look()
    if (here / "mute").exists():
        sys.exit("error: no models today")
    served = http.server.HTTPServer(("127.0.0.1", int(str(after("--port")))), Handler)
    print(json.dumps({"url": f"http://127.0.0.1:{served.server_port}"}), flush=True)
    served.serve_forever()
"""

VERBS = [
    "export",
    *("repo init", "publish", "repo provision", "enrol", "sync", "serve"),
    *("export", "publish"),
    *("publish", "publish"),
]
ONCE = ["--update", "--once", "--port", "0"]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A project folder with a made-up `edgekit`, and a way to see what was called."""
    program = tmp_path / "edgekit.py"
    program.write_text(FAKE_EDGEKIT, encoding="utf-8")
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    monkeypatch.setattr(demo_agent, "EDGEKIT", (sys.executable, str(program)))
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "demo_model", lambda: model)
    monkeypatch.setattr(demo_update, "POLL_S", 0.01)
    monkeypatch.setattr("signal.signal", lambda _number, _handler: None)
    act = tmp_path / ".cache" / "demo" / "update"
    return SimpleNamespace(folder=tmp_path, program=program, model=model, act=act)


def called(kit: SimpleNamespace) -> list[str]:
    calls = kit.folder / "calls"
    return str(calls.read_text(encoding="utf-8")).splitlines() if calls.exists() else []


def test_four_versions_and_what_becomes_of_each(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(ONCE) == 0
    out = capsys.readouterr().out
    for line in (
        "Version 1 is installed: fake-1",
        "Version 2 was picked up by the running agent, and passed its trial: fake-2",
        "Version 3 was refused by its trial, though it is signed: it talks nonsense",
        "Version 4 was refused by its signature, for somebody changed it on the way: ",
    ):
        assert line in out
    assert [line.strip() for line in out.splitlines() if " said version" in line] == [
        "said version 1",
        *["said version 2"] * 3,
    ]
    assert called(kit) == VERBS


@pytest.mark.usefixtures("kit")
def test_json_is_one_object_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([*ONCE, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert [one["release"] for one in told["versions"]] == ["fake-1", "fake-2", "fake-3", "fake-4"]
    assert [one["answers"] for one in told["versions"]] == ["fake-1", "fake-2", "fake-2", "fake-2"]
    assert ["refused" in one for one in told["versions"]] == [False, False, True, True]
    assert "Version 4 was refused" in err


def test_a_second_run_begins_anew_and_exports_nothing(kit: SimpleNamespace) -> None:
    demo.main(ONCE)
    assert demo.main(ONCE) == 0
    again = ["verify" if verb == "export" else verb for verb in VERBS]
    assert called(kit) == VERBS + again


def test_the_repository_itself_is_never_tampered_with(kit: SimpleNamespace) -> None:
    demo.main(ONCE)
    own, served = (
        json.loads((kit.act / name / "metadata" / "timestamp.json").read_text()) for name in ("repository", "server")
    )
    assert own["signed"]["version"] == 4
    assert served == {**own, "signed": {**own["signed"], "version": 5}}


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("repo init", "edgekit repo init failed"),
        ("publish", "edgekit publish"),
        ("enrol", "edgekit enrol"),
        ("sync", "edgekit sync --once failed"),
    ],
)
def test_a_verb_that_fails_is_the_end(
    kit: SimpleNamespace, capsys: pytest.CaptureFixture[str], verb: str, said: str
) -> None:
    (kit.folder / "broken").write_text(verb)
    assert demo.main(ONCE) == 1
    assert said in capsys.readouterr().err
    assert called(kit)[-1] == verb


def test_an_agent_that_does_not_start_has_a_log(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    (kit.folder / "mute").touch()
    assert demo.main(ONCE) == 1
    assert f"error: the agent did not start; {kit.act / 'agent.log'} tells why" in capsys.readouterr().err
    assert "no models today" in (kit.act / "agent.log").read_text()


def test_an_answer_of_another_version_is_an_error(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    (kit.folder / "stubborn").touch()
    assert demo.main(ONCE) == 1
    assert "error: fake-1 should answer, and fake-7 does" in capsys.readouterr().err


@pytest.mark.usefixtures("kit")
def test_what_never_happens_is_not_waited_for_for_ever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_update, "WAIT_S", 0.05)
    monkeypatch.setattr(demo_update, "_refusal", lambda *_: "")
    assert demo.main(ONCE) == 1
    assert "error: waited in vain for version 3 to be refused" in capsys.readouterr().err


def started(kit: SimpleNamespace, *arguments: str) -> "subprocess.Popen[str]":
    """The demo, in a process of its own."""
    starter = (
        "import signal, sys, pathlib, demo, demo_agent\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it ignored
        f"demo_agent.EDGEKIT = (sys.executable, {str(kit.program)!r})\n"
        f"demo.ROOT = pathlib.Path({str(kit.folder)!r})\n"
        f"sys.exit(demo.main(['--update', '--port', '0', '--model', {str(kit.model)!r}, *{list(arguments)!r}]))"
    )
    command = [sys.executable, "-c", starter]
    return subprocess.Popen(
        command,
        cwd=Path(demo.__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def until(condition: Callable[[], Any]) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.mark.skipif(os.name != "posix", reason="signals between processes are POSIX")
@pytest.mark.parametrize(
    ("number", "verb"),
    [
        (signal.SIGINT, "export 1"),
        (signal.SIGTERM, "publish 1"),
        (signal.SIGINT, "sync 1"),
        (signal.SIGINT, "publish 2"),
    ],
)
def test_stopped_in_the_middle_it_leaves_nothing_running(
    kit: SimpleNamespace, number: signal.Signals, verb: str
) -> None:
    stuck = kit.folder / "stuck"
    stuck.write_text(verb)
    with started(kit) as process:
        until(lambda: not stuck.exists())
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(number)
        out = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0
    assert out.endswith("Stopped.\n")
    assert psutil.wait_procs(family, timeout=60)[1] == []


@pytest.mark.skipif(os.name != "posix", reason="signals between processes are POSIX")
def test_without_once_the_agent_goes_on_until_it_is_stopped(kit: SimpleNamespace) -> None:
    with started(kit) as process:
        lines = iter(process.stdout or ())
        said = []
        for line in lines:
            said.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert any(line.startswith("Page      http://127.0.0.1:") and "/#/updates" in line for line in said)
        process.send_signal(signal.SIGINT)
        assert list(lines)[-1] == "Stopped.\n"
    assert process.returncode == 0
