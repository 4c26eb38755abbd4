"""The derived file is the same whatever the pieces are that it is made in."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgekit import contract
from edgekit.bundle import open_bundle
from edgekit.onnxfile import external_tensors
from edgekit.twin import expand as room
from edgekit.twin.codes import StoredRows, int8_rows
from edgekit.twin.expand import expand, read_layout
from edgekit.twin.layout import Expanded
from tests.device_agent.bundles import TINY, TWIN, copy_to

SPECS = open_bundle(TWIN).manifest.quant.weights


def made(target: Path) -> bytes:
    digest = expand(TWIN / contract.DATA_FILE, target, read_layout(TWIN, SPECS), reach=127, step=lambda: None)
    raw = target.read_bytes()
    assert digest == hashlib.sha256(raw).hexdigest()
    return raw


def test_every_tensor_is_where_the_graph_looks_for_it(tmp_path: Path) -> None:
    raw, data = made(tmp_path / "data"), (TWIN / contract.DATA_FILE).read_bytes()
    source = {t.name: t for t in external_tensors((TWIN / contract.MODEL_FILE).read_bytes())}
    found = {
        t.name: raw[t.offset : t.offset + (t.length or 0)]
        for t in external_tensors((TWIN / contract.PREFILL_FILE).read_bytes())
    }
    layout = read_layout(TWIN, SPECS)
    assert len(raw) == layout.size_bytes

    def read(name: str) -> bytes:
        return data[source[name].offset : source[name].offset + (source[name].length or 0)]

    matrices = [part for part in layout.parts if isinstance(part, Expanded)]
    # Of the last layer only what keys and values need; neither LM head nor the last norm.
    assert [part.name for part in matrices] == [
        *(f"layers.0.{n}" for n in ("qkv", "o", "gate_up", "down")),
        "layers.1.qkv",
    ]
    for part in matrices:
        packed = np.frombuffer(read(f"{part.name}.weight"), np.uint8).reshape(source[f"{part.name}.weight"].shape)
        scales = np.frombuffer(read(f"{part.name}.scales"), np.float32).reshape(part.rows, -1)
        codes, row_scales = int8_rows(StoredRows(part.spec, part.columns, packed, scales), 127)
        assert found[f"{part.name}.int8"] == codes.T.tobytes()
        assert found[f"{part.name}.row_scales"] == row_scales.tobytes()
    copied = found.keys() & source.keys()
    assert {"embed.weight", "embed.scales", "layers.1.attention_norm.weight"} <= copied
    assert all(found[name] == read(name) for name in copied)


@pytest.mark.parametrize(
    "sizes", [{"_STRIP_BYTES": 700}, {"_TILE_VALUES": 200}, {"_COPY_BYTES": 100}, {"_STRIP_BYTES": 1}]
)
def test_pieces_of_other_sizes_give_the_same_file(
    sizes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(tmp_path / "whole")
    for name, size in sizes.items():
        monkeypatch.setattr(room, name, size)
    assert made(tmp_path / "pieces") == whole


def test_a_data_file_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    layout = read_layout(TWIN, SPECS)
    short = tmp_path / "short"
    short.write_bytes((TWIN / contract.DATA_FILE).read_bytes()[:30_000])
    with pytest.raises(ValueError, match=r"\w"):
        expand(short, tmp_path / "data", layout, reach=64, step=lambda: None)


def test_work_ends_when_it_is_told_to(tmp_path: Path) -> None:
    steps = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expand(TWIN / contract.DATA_FILE, tmp_path / "data", read_layout(TWIN, SPECS), reach=64, step=step)
    assert len(steps) == 3


def test_a_bundle_whose_graphs_belong_to_different_models_is_refused(tmp_path: Path) -> None:
    folder = copy_to(tmp_path, TWIN)
    for name in (contract.MODEL_FILE, contract.DATA_FILE):
        (folder / name).write_bytes((TINY / name).read_bytes())
    with pytest.raises(ValueError, match=r"\w"):
        read_layout(folder, SPECS)


def test_a_graph_of_absurd_size_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_GRAPH_BYTES", 100)
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        read_layout(TWIN, SPECS)
