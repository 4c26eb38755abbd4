import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit import contract
from edgekit.bundle import open_bundle, problems
from edgekit.errors import ExportError, OutputExists, QualityTooLow, UsageError
from edgekit.manifest import Manifest
from export import sweep
from export.job import ExportJob
from export.pipeline import export
from export.plots import Point
from tests import tiny
from tests.export.silent import Heard

SHORT = tiny.Config(context=40, layers=1)
LABELS = ["int4-b128", "int4-b64", "int4-b32", "int8-b64", "int8-b32"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "tiny", SHORT)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "sweep"


def test_it_makes_a_bundle_of_each_plan_and_a_plot(source: Path, out: Path) -> None:
    heard = Heard()
    points = sweep.run(ExportJob(source, out, name="mine", version="7"), heard)
    assert [point.label for point in points] == LABELS
    assert [stage for stage in heard.stages if stage in LABELS] == LABELS
    assert {path.name for path in out.iterdir()} == {*LABELS, sweep.PLOT}
    for point in points:
        bundle = open_bundle(out / point.label)
        assert problems(bundle) == []
        manifest = bundle.manifest
        assert (manifest.name, manifest.version) == ("mine", "7")
        assert manifest.quant.weights["layers.0.o"].removesuffix("-twin") == point.label
        files = [out / point.label / name for name in (contract.MODEL_FILE, contract.DATA_FILE)]
        quality = manifest.quality
        size = sum(file.stat().st_size for file in files)
        assert point == Point(point.label, size, quality["kl"], quality["same_top_token"])
    drawn = ET.fromstring((out / sweep.PLOT).read_text())
    assert set(LABELS) <= {text.strip() for text in drawn.itertext()}
    assert list(out.parent.iterdir()) == [out]


def test_the_method_is_that_of_four_bits(source: Path, out: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("and then hello in the hall, the other one: 1, 2, 3. " * 90)
    sweep.run(ExportJob(source, out, method="gptq", calibration=text), Heard())
    methods = {label: open_bundle(out / label).manifest.quant.method for label in LABELS}
    assert methods == {label: "gptq+round" if label.startswith("int4") else "round" for label in LABELS}


def test_a_plan_that_fails_leaves_nothing(source: Path, out: Path) -> None:
    with pytest.raises(QualityTooLow):
        sweep.run(ExportJob(source, out, max_kl=1e-9), Heard())
    assert list(out.parent.iterdir()) == []


def test_one_that_comes_late_too(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(job: ExportJob, progress: Heard) -> Manifest:
        if job.out.name == LABELS[-1]:
            raise KeyboardInterrupt
        return export(job, progress)

    monkeypatch.setattr(sweep, "export", failing)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(ExportJob(source, out), Heard())
    assert list(out.parent.iterdir()) == []


def test_an_output_that_exists_is_not_touched(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "mine").write_text("keep")
    with pytest.raises(OutputExists):
        sweep.run(ExportJob(source, out), Heard())
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_parent_that_does_not_exist_is_told(source: Path, out: Path) -> None:
    with pytest.raises(ExportError, match="does not exist"):
        sweep.run(ExportJob(source, out / "deeper"), Heard())


def test_a_budget_chooses_one_plan_so_it_is_refused(source: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="--size-budget"):
        sweep.run(ExportJob(source, out, size_budget=10**6), Heard())


def test_encoders_have_no_kl_to_compare(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "export", lambda *_: SimpleNamespace(task="embed"))
    with pytest.raises(UsageError, match="vectors"):
        sweep.run(ExportJob(source, out), Heard())
    assert list(out.parent.iterdir()) == []
