import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import contract
from edgekit.bundle import Bundle, open_bundle, read_manifest
from edgekit.errors import BundleError, CorruptBundle, UsageError
from export.evaluate.reader import BundleReader, common_prefix
from export.evaluate.reference import checked_bundle, open_reader
from tests.export.exports import Decoder

IDS = [5, 77, 210, 3, 98, 150, 261, 12]


def opened(folder: Path) -> BundleReader:
    return BundleReader(open_bundle(folder), threads=1)


def expected(folder: Path, ids: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return Decoder(folder, read_manifest(folder).arch).step(ids)


def test_windows_are_independent_and_come_in_turn(int4_bundle: Path) -> None:
    windows = [IDS, IDS[3:], IDS[:1]]
    for window, found in zip(windows, opened(int4_bundle).windows(windows), strict=True):
        np.testing.assert_allclose(found, expected(int4_bundle, window), atol=1e-5)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.lists(st.sampled_from([5, 7]), min_size=1, max_size=6), st.integers(1, 6)), min_size=2))
def test_what_was_read_before_never_shows(float_bundle: Path, asked: list[tuple[list[int], int]]) -> None:
    """Few different ids, so that sequences share beginnings of every length."""
    reader = opened(float_bundle)
    for ids, keep in asked:
        kept = min(keep, len(ids))
        np.testing.assert_allclose(reader.after(ids, kept), expected(float_bundle, ids)[-kept:], atol=1e-4)


def test_only_what_is_new_is_read(float_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = opened(float_bundle), []
    run = reader._run

    def counted(ids: list[int], *rest: object) -> object:
        read.append(len(ids))
        return run(ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "_run", counted)
    for ids, keep in ((IDS, 1), ([*IDS, 9], 1), ([*IDS, 4, 4], 2), (IDS, 1)):
        reader.after(ids, keep)
    assert read == [8, 1, 2, 1]


def test_a_sequence_that_cannot_be_read_is_refused(float_bundle: Path) -> None:
    reader = opened(float_bundle)
    for ids, keep in (([], 1), ([1], 0), ([1], 2), ([320], 1), ([-1], 1), ([1] * 257, 1)):
        with pytest.raises(ValueError, match="tokens"):
            reader.after(ids, keep)


def test_logits_that_are_no_numbers_are_an_error(float_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(float_bundle, folder)
    data = folder / contract.DATA_FILE
    data.write_bytes(b"\xff" * data.stat().st_size)  # every float is NaN
    with pytest.raises(BundleError, match="not finite"):
        next(opened(folder).windows([IDS]))


def test_a_graph_without_logits_makes_no_text(float_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(float_bundle, folder)
    model = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False)
    kept = [value for value in model.graph.output if value.name != contract.LOGITS]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, str(folder / contract.MODEL_FILE))
    with pytest.raises(UsageError, match="makes no text"):
        BundleReader(Bundle(folder, read_manifest(folder)), threads=1)


def test_a_graph_that_onnxruntime_refuses_is_a_damaged_bundle(float_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(float_bundle, folder)
    (folder / contract.MODEL_FILE).write_bytes(b"\x08\x01")
    with pytest.raises(CorruptBundle, match="cannot load"):
        BundleReader(Bundle(folder, read_manifest(folder)), threads=1)


def test_what_is_measured_is_what_was_recorded(float_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(float_bundle, folder)
    assert checked_bundle(folder).manifest == read_manifest(folder)
    data = folder / contract.DATA_FILE
    raw = bytearray(data.read_bytes())
    raw[100] ^= 1
    data.write_bytes(raw)
    with pytest.raises(CorruptBundle, match="SHA-256"):
        open_reader(folder)


@pytest.mark.parametrize(
    ("one", "other", "count"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1), ([4], [5], 0)]
)
def test_the_common_prefix_ends_at_the_first_difference(one: list[int], other: list[int], count: int) -> None:
    assert common_prefix(one, other) == common_prefix(other, one) == count
