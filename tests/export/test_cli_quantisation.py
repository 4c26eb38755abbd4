"""`edgekit export`: the options of quantisation, from the command line to the bundle."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from edgekit import contract
from edgekit.cli import Size, main
from export import cli
from export.job import ExportJob
from export.quantize.prepare import other_bytes
from tests import tiny
from tests.export.exports import opened

SHORT = tiny.Config(context=40, layers=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "tiny", SHORT)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("and then hello in the hall, the other one: 1, 2, 3. " * 90)
    return file


def run(*arguments: str | Path) -> object:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("91700000", 91_700_000),
        ("91.7MB", 91_700_000),
        ("91.7m", 91_700_000),
        ("92 MB", 92_000_000),
        ("1.5G", 1_500_000_000),
        ("700kB", 700_000),
        ("0", 0),
    ],
)
def test_a_size_is_a_number_of_bytes(written: str, size: int) -> None:
    assert Size().convert(written, None, None) == size


@pytest.mark.parametrize("written", ["", "MB", "-5MB", "1e9", "92MiB", "1.5.2G", "9" * 400, "ninety"])
def test_a_size_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(click.BadParameter, match="not a size"):
        Size().convert(written, None, None)


def test_every_option_reaches_the_job(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[ExportJob] = []

    def noted(job: ExportJob, _: object) -> None:
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr("export.pipeline.export", noted)
    wishes = ("--method", "gptq", "--block-size", "64", "--size-budget", "92MB", "--max-kl", "0.1")
    run("export", source, "-o", tmp_path / "out", *wishes, "--calibration", text)
    run("export", source, "-o", tmp_path / "out")
    run("export", source, "-o", tmp_path / "out", "--freeze-scales-from", tmp_path / "base")
    expected = ExportJob(
        source,
        tmp_path / "out",
        block_size=64,
        method="gptq",
        size_budget=92_000_000,
        max_kl=0.1,
        calibration=text,
    )
    plain = ExportJob(source, tmp_path / "out")
    assert jobs == [expected, plain, replace(plain, freeze_scales_from=tmp_path / "base")]


def test_a_budget_and_its_plan_are_reported(
    source: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(source) as (arch, _):
        budget = other_bytes(arch) + 65_000
    wishes = ("--method", "gptq", "--size-budget", str(budget), "--calibration", text)
    assert run("export", source, "-o", tmp_path / "one", *wishes) == 0
    said = capsys.readouterr()
    assert "int4-b64-twin: " in said.out or "int4-b32-twin: " in said.out
    assert "measuring what each matrix's rounding costs" in said.err
    assert "rounding layer by layer (GPTQ)" in said.err
    assert run("export", source, "-o", tmp_path / "two", *wishes, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["method"] == "gptq+round"
    assert report["weights"] == json.loads((tmp_path / "two" / contract.MANIFEST_FILE).read_text())["quant"]["weights"]
    assert len(set(report["weights"].values())) > 1


WRONG = {
    "gptq of INT8": (("--method", "gptq", "--quant", "int8"), 2, "--method gptq is for int4"),
    "budget of floats": (("--size-budget", "1MB", "--quant", "fp32"), 2, "--size-budget"),
    "frozen scales of none": (("--freeze-scales-from", "{source}"), 31, "bundle.json"),
    "frozen scales and GPTQ": (("--freeze-scales-from", "{source}", "--method", "gptq"), 2, "--freeze-scales-from"),
    "budget and sweep": (("--size-budget", "1MB", "--sweep"), 2, "--sweep"),
    "budget too small": (("--size-budget", "90kB", "--calibration", "{text}"), 24, "--size-budget"),
    "no such text": (("--method", "gptq", "--calibration", "{text}.missing"), 11, "no such text file"),
    "too little text": (("--method", "gptq", "--calibration", "{source}/generation_config.json"), 25, "tokens"),
    "too much lost": (("--max-kl", "0.000001"), 26, "--max-kl allows 1e-06"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wish_that_cannot_be_met_is_one_line_and_a_code(
    name: str, source: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wishes, code, said = WRONG[name]
    given = [wish.format(text=text, source=source) for wish in wishes]
    assert run("export", source, "-o", tmp_path / "out", *given) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt", "tiny"]


@pytest.mark.parametrize(
    "wish", [("--method", "awq"), ("--block-size", "33"), ("--max-kl", "-1"), ("--size-budget", "x")]
)
def test_a_value_that_an_option_does_not_have_is_wrong_usage(wish: tuple[str, str], tmp_path: Path) -> None:
    assert run("export", "x", "-o", tmp_path / "out", *wish) == 2


def test_a_sweep_prints_its_table_and_where_the_plot_is(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", source, "-o", tmp_path / "table", "--sweep") == 0
    said = capsys.readouterr().out
    assert all(label in said for label in ("int4-b128", "int8-b32", "best of its size"))
    assert f"plot: {tmp_path / 'table' / 'quality.svg'}" in said
    assert run("export", source, "-o", tmp_path / "json", "--sweep", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bundles"] == str(tmp_path / "json")
    for plan in report["plans"]:
        manifest = json.loads((tmp_path / "json" / plan["label"] / contract.MANIFEST_FILE).read_text())
        assert plan["kl"] == manifest["quality"]["kl"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_stage_that_has_a_size_draws_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = cli.Bar()
    for stage in ("one", "two", "three"):
        bar.stage(stage)
        for done in () if stage == "two" else (3, 7):
            bar.advance(done, 7)
    drawn = screen.getvalue()
    first, last = drawn.split("two")
    assert first.count("100%") == last.count("100%") == 1
