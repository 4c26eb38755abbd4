from pathlib import Path

import numpy as np
import pytest

from export.job import ExportJob
from export.pipeline import export
from export.segments import SEGMENT_BYTES, Segments
from tests import tiny
from tests.export.exports import Decoder, export_tiny
from tests.export.silent import Heard

IDS = [5, 77, 210, 3, 98, 150, 261]
WHOLE, CUT = 1, SEGMENT_BYTES  # bytes of a layer: of all layers in one segment, and of one segment each


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("layer_bytes", [WHOLE, CUT], ids=["one segment", "a segment a layer"])
@pytest.mark.parametrize("exact", [True, False])
def test_segments_compute_what_the_whole_graph_computes(
    precision: str, layer_bytes: int, exact: bool, tmp_path: Path
) -> None:
    shape = tiny.Config(layers=3, tied=True)
    arch = export_tiny(tiny.write_hf_folder(tmp_path / "tiny", shape), tmp_path / "out", precision).arch  # type: ignore[arg-type]
    decoder = Decoder(tmp_path / "out", arch, exact=exact)
    expected, expected_next = decoder.step(IDS), decoder.step([9])
    before = set((tmp_path / "out").iterdir())
    with Segments(tmp_path / "out", arch, layer_bytes, exact=exact) as segments:
        made = set((tmp_path / "out").iterdir()) - before
        assert len(made) == (1 if layer_bytes == WHOLE else 3)
        (found,), (past,) = segments.run([IDS], [segments.empty()])
        (following,), _ = segments.run([[9]], [past])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(following, expected_next, atol=1e-5)
    assert set((tmp_path / "out").iterdir()) == before


@pytest.mark.parametrize("layer_bytes", [WHOLE, CUT], ids=["one segment", "a segment a layer"])
def test_an_exact_run_has_a_float_cache(layer_bytes: int, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny")
    arch = export_tiny(source, tmp_path / "floats", "int4").arch
    export(ExportJob(source, tmp_path / "codes", "int4", kv="int8"), Heard())
    rounded = Decoder(tmp_path / "codes", arch)
    with (
        Segments(tmp_path / "floats", arch, layer_bytes, exact=True) as floats,
        Segments(tmp_path / "codes", arch, layer_bytes, exact=True) as exact,
    ):
        (expected,), _ = floats.run([IDS], [floats.empty()])
        (found,), past = exact.run([IDS], [exact.empty()])
        assert {each.dtype.name for each in past[0]} == {"float32"}
        np.testing.assert_array_equal(found, expected)
    with Segments(tmp_path / "codes", arch, layer_bytes, exact=False) as as_devices:
        (found,), past = as_devices.run([IDS], [as_devices.empty()])
        assert {each.dtype.name for each in past[0]} == {"int8"}
        (following,), _ = as_devices.run([[9]], past)
    np.testing.assert_allclose(found, rounded.step(IDS), atol=1e-5)
    np.testing.assert_allclose(following, rounded.step([9]), atol=1e-5)


def test_sequences_side_by_side_do_not_mix(tmp_path: Path) -> None:
    arch = export_tiny(tiny.write_hf_folder(tmp_path / "tiny"), tmp_path / "out").arch
    with Segments(tmp_path / "out", arch, CUT, exact=True) as segments:
        (one, other), pasts = segments.run([IDS, IDS[:2]], [segments.empty(), segments.empty()])
        (one_more, other_more), _ = segments.run([[1], [2, 3]], pasts)
        (alone,), _ = segments.run([[*IDS, 1]], [segments.empty()])
        (other_alone,), _ = segments.run([[*IDS[:2], 2, 3]], [segments.empty()])
    np.testing.assert_allclose(np.concatenate([one, one_more]), alone, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([other, other_more]), other_alone, atol=1e-5)
