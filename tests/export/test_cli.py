import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.cli import main
from export.families import FAMILIES
from tests import tiny


@dataclass(frozen=True)
class Result:
    code: object
    out: str
    err: str


class Run:
    """`edgekit ...` in this process: faster than a new one, and the same code."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Result:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(stop.value.code, captured.out, captured.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "tiny")


def test_json_has_the_fields_that_scripts_rely_on(run: Run, source: Path, tmp_path: Path) -> None:
    result = run(
        "export", source, "-o", tmp_path / "out", "--quant", "int8", "--name", "n", "--version", "v2", "--json"
    )
    assert result.code == 0
    report = json.loads(result.out)
    assert report["bundle"] == str(tmp_path / "out")
    assert (report["name"], report["version"], report["quant"]) == ("n", "v2", "int8")
    files = [path for path in (tmp_path / "out").iterdir() if path.name != "bundle.json"]
    assert report["bytes"] == sum(path.stat().st_size for path in files)
    assert report["weights"]["layers.0.qkv"] == "int8-b32"
    assert 0 < report["seconds"] < 3600
    assert report["peak_rss_bytes"] > 1 << 20
    assert report["quality"] == json.loads((tmp_path / "out" / "bundle.json").read_text())["quality"]


def test_a_person_gets_a_summary_and_progress_apart(run: Run, source: Path, tmp_path: Path) -> None:
    result = run("export", source, "-o", tmp_path / "out", "--quant", "fp32")
    assert result.code == 0
    assert f"{tmp_path / 'out'}: tiny 1, fp32" in result.out
    assert "same top token 100.0%" in result.out
    assert "edgekit chat" in result.out
    for stage in ("reading tiny", "writing fp32 weights", "measuring quality", "recording golden tokens", "hashing"):
        assert stage in result.err
        assert stage not in result.out


@dataclass(frozen=True)
class Wrong:
    name: str
    arguments: Sequence[str]
    code: int
    said: str


WRONG = (
    Wrong("no such source", ("export", "{tmp}/nothing", "-o", "{tmp}/out"), 11, "there is no such file"),
    Wrong("output exists", ("export", "{tmp}/tiny", "-o", "{tmp}/tiny"), 21, "exists already"),
    Wrong("parent missing", ("export", "{tmp}/tiny", "-o", "{tmp}/a/b"), 20, "does not exist"),
    Wrong("bad name", ("export", "{tmp}/tiny", "-o", "{tmp}/out", "--name", "a b"), 2, "--name 'a b'"),
    Wrong("no adapter", ("export", "{tmp}/tiny", "-o", "{tmp}/out", "--adapter", "{tmp}/lora"), 11, "not an adapter"),
    Wrong("not a GGUF", ("export", "{tmp}/tiny/config.json", "-o", "{tmp}/out"), 12, "config.json"),
    Wrong("unknown family", ("export", "{tmp}/other", "-o", "{tmp}/out"), 14, ", llama, "),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
@pytest.mark.usefixtures("source")
def test_an_error_is_one_line_a_hint_and_a_code(wrong: Wrong, run: Run, tmp_path: Path) -> None:
    other = tiny.write_hf_folder(tmp_path / "other")
    (other / "config.json").write_text(json.dumps({**tiny.hf_config(), "model_type": "gpt9"}))
    arguments = [word.format(tmp=tmp_path) for word in wrong.arguments]
    result = run(*arguments)
    assert result.code == wrong.code
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert wrong.said in line
    assert "Traceback" not in result.err
    assert result.out == ""
    assert json.loads(run(*arguments, "--json").out)["error"]["message"] == line.removeprefix("error: ")
    assert not (tmp_path / "out").exists()


def test_rotate_reaches_the_bundle(run: Run, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(tied=True))
    weights = json.loads(run("export", source, "-o", tmp_path / "out", "--rotate", "--json").out)["weights"]
    assert weights["rotate_in"] == weights["rotate_out"] == "int4-b64"


def test_kv_reaches_the_bundle(run: Run, source: Path, tmp_path: Path) -> None:
    run("export", source, "-o", tmp_path / "out", "--kv", "int8")
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["cache"] == "int8"


@pytest.mark.parametrize("arguments", [("export",), ("export", "x"), ("export", "x", "-o", "y", "--quant", "int3")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], run: Run) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage: edgekit export" in result.err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "export", str(tmp_path / "nothing"), "-o", str(tmp_path / "out")]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert plain.returncode == 11
    assert "Traceback" not in plain.stderr
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr


def test_families_lists_what_export_knows(run: Run) -> None:
    listed = json.loads(run("families", "--json").out)
    assert [family["model_type"] for family in listed] == list(FAMILIES)
    assert all(set(family) == {"model_type", "names", "checked"} for family in listed)
    table = run("families").out
    assert all(name in table for family in FAMILIES.values() for name in family.names)


@pytest.mark.parametrize("verb", ["export", "families"])
def test_help_explains(verb: str, run: Run) -> None:
    result = run(verb, "--help")
    assert result.code == 0
    assert "Usage: edgekit" in result.out


def test_help_of_export_has_examples(run: Run) -> None:
    assert "edgekit export ./my-fine-tune -o my-model" in run("export", "--help").out
