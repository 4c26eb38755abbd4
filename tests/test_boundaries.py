"""The rules of the house that a reader should not have to check: who imports what, and how long a file is."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import ROOT, imports_of

MAY_IMPORT = {
    "edgekit": {"edgekit", "jinja2", "msgspec"},
    "export": {"export", "edgekit", "numpy", "onnx", "onnxruntime", "safetensors", "gguf", "tokenizers", "msgspec"}
    | {"tuf", "securesystemslib", "urllib3"},
    "device_agent": {
        *("device_agent", "edgekit", "numpy", "onnxruntime", "tokenizers", "flask", "werkzeug", "waitress", "psutil"),
        *("msgspec", "click", "jinja2", "llguidance", "prometheus_client", "tuf", "securesystemslib", "urllib3"),
    },
}
EXCEPTIONS = {
    "edgekit/cli.py": {"click"},
    # The arithmetic of weights that devices derive and export measures: neither side may import the other.
    "edgekit/twin/codes.py": {"numpy"},
    "edgekit/twin/expand.py": {"numpy"},
    "edgekit/console.py": {"click"},
    "export/cli.py": {"click"},
    "export/eval_cli.py": {"click"},
    "export/adapter_cli.py": {"click"},
    **{f"export/publish/{name}": {"click"} for name in ("cli.py", "repo_cli.py", "channel_cli.py", "rollout_cli.py")},
    "export/publish/bundle_cli.py": {"click"},
    "export/publish/keys_cli.py": {"click"},
    "export/publish/push_cli.py": {"click"},
    "export/publish/terminal.py": {"click"},
    "export/publish/keys.py": {"cryptography"},
    "export/optimum/original.py": {"torch", "transformers", "optimum"},
}
NEVER_ON_A_DEVICE = {"torch", "transformers", "optimum", "onnx", "safetensors", "gguf", "export"}
MAX_LINES = 500
SOURCE_SUFFIXES = {".py", ".js", ".css", ".html", ".toml", ".sh"}
SKIPPED_FOLDERS = {
    ".git",
    ".venv",
    ".venv-device",
    ".venv-clients",
    ".cache",
    "build",
    "dist",
    "__pycache__",
    "edgekit.egg-info",
}


def _tree() -> list[Path]:
    return [p for p in sorted(ROOT.rglob("*")) if p.is_file() and not SKIPPED_FOLDERS & set(p.relative_to(ROOT).parts)]


TREE = _tree()
ROOM_FILES = [p for p in TREE if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in MAY_IMPORT]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", ROOM_FILES, ids=_name)
def test_imports_stay_in_their_room(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[room] | EXCEPTIONS.get(_name(path), set())
    stray = {name.split(".")[0] for name in imports_of(path)} - allowed - sys.stdlib_module_names
    assert not stray, f"{_name(path)} may not import {sorted(stray)}"


def test_the_device_meets_onnxruntime_in_two_files_only() -> None:
    found = {_name(path) for path in ROOM_FILES if "onnxruntime" in imports_of(path)}
    assert {name for name in found if name.startswith("device_agent/")} == {
        "device_agent/engine/graphs/session.py",
        "device_agent/engine/twin/probe.py",  # asks the processor, and runs no bundle
    }


@pytest.mark.parametrize("path", ROOM_FILES, ids=_name)
def test_nothing_is_unpickled_evaluated_or_imported_relatively(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "__import__"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not {name.split(".")[0] for name in imports_of(path)} & {"pickle", "marshal", "shelve"}


@pytest.mark.parametrize("path", [p for p in ROOM_FILES if p.name == "__init__.py"], ids=_name)
def test_every_room_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_folder_of_a_room_is_a_package() -> None:
    assert not [_name(p) for p in ROOM_FILES if not (p.parent / "__init__.py").is_file()]


def test_no_file_is_too_long_to_read() -> None:
    lengths = {_name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in TREE if p.suffix in SOURCE_SUFFIXES}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_packaging_and_tests_never_become_packages() -> None:
    assert not [_name(p) for p in TREE if p.name == "__init__.py" and p.relative_to(ROOT).parts[0] not in MAY_IMPORT]


@pytest.mark.parametrize("module", ["edgekit.cli", "device_agent", "device_agent.cli", "device_agent.app"])
def test_a_device_module_brings_nothing_of_the_build_side(module: str) -> None:
    assert not _modules_after(f"import {module}") & NEVER_ON_A_DEVICE


def test_serve_starts_without_the_build_side() -> None:
    program = (
        "import contextlib, io\nfrom edgekit.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['serve', '--help'])"
    )
    assert not _modules_after(program) & NEVER_ON_A_DEVICE


def _modules_after(program: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `program`."""
    code = program + "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("module", ["device_agent", "device_agent.cli"])
def test_a_verb_that_runs_no_model_need_not_wait_for_the_runtime(module: str) -> None:
    assert not _modules_after(f"import {module}") & {"numpy", "onnxruntime", "tokenizers"}
