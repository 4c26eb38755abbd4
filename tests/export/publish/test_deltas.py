import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit import contract
from edgekit.errors import PublishError
from edgekit.release import codec
from edgekit.release.delta import Delta
from edgekit.release.manifest import HealthFloor, Release, Requires
from export.job import ExportJob
from export.pipeline import export
from export.publish.content import add_release
from export.publish.deltas import make_delta, predict
from export.publish.packing import place_of, read_chunk
from tests import tiny
from tests.export.silent import SILENT

SHAPE = tiny.Config(hidden=256, heads=4, kv_heads=2, head_dim=64, intermediate=512, vocab=512)
"""Wide enough that matrices are chunks of their own."""
Values = Mapping[str, NDArray[np.float32]]


def nudged(values: Values, share: float) -> Values:
    """Each matrix moved a little, as a fine-tune does."""
    random = np.random.default_rng(1)
    return {
        name: (each + random.normal(0, share * each.std(), each.shape) * (each.ndim == 2)).astype(np.float32)
        for name, each in values.items()
    }


def bundle(
    folder: Path,
    values: Values | None = None,
    *,
    shape: tiny.Config = SHAPE,
    version: str = "1",
    base: Path | None = None,
) -> Path:
    source = tiny.write_hf_folder(
        folder.with_name(f"{folder.name}-source"), shape, values=values or tiny.weights(shape)
    )
    export(ExportJob(source, folder, "int4", "tiny", version, freeze_scales_from=base), SILENT)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("base") / "one")


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "two"
    return bundle(folder, nudged(tiny.weights(SHAPE), 0.003), version="2", base=base)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def published(repository: Path, *folders: Path) -> list[Release]:
    releases: list[Release] = []
    for folder in folders:
        releases.append(
            add_release(
                folder,
                repository,
                sequence=len(releases) + 1,
                earlier=releases,
                health=HealthFloor(),
                requires=Requires(),
            )
        )
    return releases


def check(base: Release, new: Release, delta: Delta, repository: Path) -> None:
    """Every difference, added to the chunk that it names, gives the chunk that it names; each is worth having."""
    before = {chunk.sha256: (chunk, place_of(chunk, base.packs)) for _, _, chunk in base.chunks()}
    after = {chunk.sha256: chunk for _, _, chunk in new.chunks()}
    assert (delta.base, delta.release) == (base.id, new.id)
    for each in delta.differences:
        old, place = before[each.base]
        assert each.chunk not in before
        assert each.stored < after[each.chunk].stored
        pack = delta.packs[each.pack]
        stored = (repository / f"packs/{pack.sha256[:2]}/{pack.sha256}.pack").read_bytes()
        assert len(stored) == pack.size
        found = codec.unpack(each.codec, stored[each.offset : each.offset + each.stored], old.size)
        made = codec.restore(read_chunk(repository, place, old.size, each.base), found)
        assert hashlib.sha256(made).hexdigest() == each.chunk


def test_a_fine_tune_with_frozen_scales_is_small(base: Path, tuned: Path, repository: Path) -> None:
    one, two = published(repository, base, tuned)
    delta = make_delta(one, None, two, None, repository)
    check(one, two, delta, repository)
    weights = next(share for share in predict(one, two, delta).shares if share.path == contract.DATA_FILE)
    whole = next(share for share in predict(one, two, None).shares if share.path == contract.DATA_FILE)
    assert weights.bytes < 0.15 * whole.bytes
    assert weights.whole_bytes == 0
    scales = [chunk for file, _, chunk in two.chunks() if file.path == contract.DATA_FILE]
    assert {chunk.sha256 for chunk in scales} & {chunk.sha256 for _, _, chunk in one.chunks()}, "frozen scales are here"


def test_folders_give_the_same_differences_as_packs(base: Path, tuned: Path, repository: Path) -> None:
    one, two = published(repository, base, tuned)
    assert make_delta(one, base, two, tuned, repository) == make_delta(one, None, two, None, repository)


def test_a_device_that_follows_the_prediction_fetches_that_much(base: Path, tuned: Path, repository: Path) -> None:
    one, two = published(repository, base, tuned)
    delta = make_delta(one, None, two, None, repository)
    found = predict(one, two, delta)
    have = {chunk.sha256 for _, _, chunk in one.chunks()}
    differences = {each.chunk: each.stored for each in delta.differences}
    needed = {chunk.sha256: chunk.stored for _, _, chunk in two.chunks() if chunk.sha256 not in have}
    content = sum(differences.get(sha256, stored) for sha256, stored in needed.items())
    assert found.bytes == content + len(two.to_bytes()) + len(delta.to_bytes())
    everything = {chunk.sha256: chunk.stored for _, _, chunk in two.chunks()}
    assert found.full_bytes == sum(everything.values()) + len(two.to_bytes())
    assert {share.path for share in found.shares} == {file.path for file in two.files}


def test_the_same_content_under_another_version_is_not_fetched(base: Path, repository: Path) -> None:
    (one,) = published(repository, base)
    two = msgspec.structs.replace(one, version="2")
    delta = make_delta(one, None, two, None, repository)
    assert delta.differences == ()
    assert predict(one, two, delta).bytes == len(two.to_bytes()) + len(delta.to_bytes())


def test_models_that_have_nothing_in_common_get_no_differences_of_weights(
    base: Path, tmp_path: Path, repository: Path
) -> None:
    other = bundle(tmp_path / "other", tiny.weights(SHAPE, seed=5), version="9")
    one, two = published(repository, base, other)
    delta = make_delta(one, None, two, None, repository)
    check(one, two, delta, repository)
    weights = next(share for share in predict(one, two, delta).shares if share.path == contract.DATA_FILE)
    assert weights.difference_bytes < 0.05 * weights.whole_bytes


def test_tensors_that_moved_are_matched_by_name(tmp_path: Path, base: Path, repository: Path) -> None:
    """A larger vocabulary is written in front of everything, and moves all of it."""
    values = dict(nudged(tiny.weights(SHAPE), 0.003))
    wider = replace(SHAPE, vocab=SHAPE.vocab + 40)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more = np.random.default_rng(3).normal(0, values[name].std(), (40, SHAPE.hidden)).astype(np.float32)
        values[name] = np.concatenate([values[name], more])
    grown = bundle(tmp_path / "grown", values, shape=wider, version="3", base=base)
    one, two = published(repository, base, grown)
    delta = make_delta(one, None, two, None, repository)
    check(one, two, delta, repository)
    layers = [
        chunk.sha256
        for file, offset, chunk in two.chunks()
        if file.path == contract.DATA_FILE and offset > wider.vocab * (SHAPE.hidden + 16) and chunk.size >= 64 << 10
    ]
    assert len(layers) > 5
    assert sum(sha256 in {each.chunk for each in delta.differences} for sha256 in layers) >= len(layers) - 2


def test_other_tokenizer_files_alone_cost_what_they_are(base: Path, tmp_path: Path, repository: Path) -> None:
    source = tmp_path / "source"
    tiny.write_hf_folder(source, SHAPE)
    text = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(text.replace("<|im_start|>", "<|im_begin|>"))
    config = (source / "tokenizer_config.json").read_text()
    (source / "tokenizer_config.json").write_text(config.replace("<|im_start|>", "<|im_begin|>"))
    other = tmp_path / "other"
    export(ExportJob(source, other, "int4", "tiny", "2"), SILENT)
    one, two = published(repository, base, other)
    found = predict(one, two, make_delta(one, None, two, None, repository))
    fetched = {share.path for share in found.shares if share.bytes}
    assert contract.TOKENIZER_FILE in fetched
    assert contract.DATA_FILE not in fetched
    assert found.bytes < 0.1 * found.full_bytes


def test_a_folder_that_changed_after_publishing_is_refused(
    base: Path, tuned: Path, tmp_path: Path, repository: Path
) -> None:
    one, two = published(repository, base, tuned)
    damaged = shutil.copytree(tuned, tmp_path / "damaged")
    raw = bytearray((damaged / contract.DATA_FILE).read_bytes())
    raw[0] ^= 1
    raw[len(raw) // 2] ^= 1
    (damaged / contract.DATA_FILE).write_bytes(raw)
    with pytest.raises(PublishError, match="changed after"):
        make_delta(one, None, two, damaged, repository)


def test_a_repository_without_the_bases_packs_cannot_count_differences(
    base: Path, tuned: Path, repository: Path
) -> None:
    one, two = published(repository, base, tuned)
    for pack in one.packs:
        (repository / f"packs/{pack.sha256[:2]}/{pack.sha256}.pack").unlink()
    with pytest.raises(PublishError, match="lacks"):
        make_delta(one, None, two, None, repository)
