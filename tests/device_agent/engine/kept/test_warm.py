"""A restart finds what the last run computed; a file that is not exactly that is removed, and nobody is hurt."""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.graphs.session import open_rows
from device_agent.engine.kept.warm import WarmFolder, key_of
from device_agent.engine.rows import Snapshot
from edgekit.arch import ModelArch
from edgekit.bundle import open_bundle
from edgekit.contract import CacheType
from tests.device_agent import bundles

ARCH = open_bundle(bundles.TINY).manifest.arch
KEY, OTHER = "a" * 64, "b" * 64
IDS = (5, 9, 2, 300)
HEADER = 12
"""Bytes before it."""


def snapshot_of(ids: Sequence[int], *, cache: CacheType = "float32", arch: ModelArch = ARCH) -> Snapshot:
    random = np.random.default_rng(len(ids))
    shape = (arch.kv_heads, len(ids), arch.head_dim)
    arrays = [random.normal(0, 40, shape).astype(cache) for _ in range(2 * arch.layers)]
    return Snapshot(len(ids), tuple(arrays))


def folder_in(path: Path, *, cache: CacheType = "float32", limit_bytes: int = 1 << 20) -> WarmFolder:
    return WarmFolder(path / "warm", ARCH, cache, limit_bytes)


def same(one: Snapshot, other: Snapshot) -> bool:
    return one.length == other.length and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one.arrays, other.arrays, strict=True)
    )


def saved(path: Path, ids: Sequence[int] = IDS) -> tuple[WarmFolder, Path]:
    folder = folder_in(path)
    assert folder.save(KEY, ids, snapshot_of(ids))
    return folder, folder.folder / f"{KEY}.kv"


# --- save and load --------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["float32", "int8"])
def test_what_was_saved_is_loaded(tmp_path: Path, cache: CacheType) -> None:
    snapshot = snapshot_of(IDS, cache=cache)
    assert folder_in(tmp_path, cache=cache).save(KEY, IDS, snapshot)
    found = folder_in(tmp_path, cache=cache).load(KEY)  # another process
    assert found is not None
    assert found[0] == IDS
    assert same(found[1], snapshot)


@given(ids=st.lists(st.integers(0, ARCH.vocab - 1), min_size=1, max_size=40))
def test_any_tokens_come_back(ids: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, _ = saved(tmp_path_factory.mktemp("warm"), ids)
    found = folder.load(KEY)
    assert found is not None
    assert found[0] == tuple(ids)
    assert same(found[1], snapshot_of(ids))


def test_arrays_that_are_views_of_larger_ones_are_saved_as_what_they_show(tmp_path: Path) -> None:
    whole = snapshot_of(range(10))
    part = Snapshot(4, tuple(array[:, :4] for array in whole.arrays))
    folder = folder_in(tmp_path)
    assert folder.save(KEY, IDS, part)
    found = folder.load(KEY)
    assert found is not None
    assert same(found[1], part)


def test_the_file_is_laid_out_as_documented(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    raw = path.read_bytes()
    assert raw[:8] == b"EKWARM1\n"
    start = start_of(raw)
    assert start % 64 == 0
    assert json.loads(raw[HEADER:start]) == {
        "key": KEY,
        "tokens": 4,
        "type": "float32",
        "shape": [2 * ARCH.layers, ARCH.kv_heads, ARCH.head_dim],
    }
    assert np.frombuffer(raw, "<i4", 4, start).tolist() == list(IDS)
    values = b"".join(array.tobytes() for array in snapshot_of(IDS).arrays)
    assert raw[start + 16 : -32] == values
    assert raw[-32:] == hashlib.sha256(raw[:-32]).digest()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    folder, path = saved(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700


def test_nothing_saved_is_nothing_loaded_and_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    folder, _ = saved(tmp_path)
    assert folder.load(OTHER) is None
    assert folder_in(tmp_path / "nowhere").load(KEY) is None
    assert not caplog.records


@pytest.mark.parametrize("key", ["", "../" + "a" * 61, "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_key_that_could_be_a_path_is_a_mistake_of_ours(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        folder_in(tmp_path).load(key)


# --- files that are not what they should be -------------------------------------------------


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[len(raw[:at]) + 1 :]


def start_of(raw: bytes) -> int:
    """Where the ids begin."""
    return HEADER + int.from_bytes(raw[8:HEADER], "little")


def resealed(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As someone who knows the format would damage it."""

    def apply(raw: bytes) -> bytes:
        changed = change(raw[:-32])
        return changed + hashlib.sha256(changed).digest()

    return apply


def header(**facts: object) -> Callable[[bytes], bytes]:
    """Another header of the same length."""

    def change(raw: bytes) -> bytes:
        end = start_of(raw)
        made = json.dumps(json.loads(raw[HEADER:end]) | facts, separators=(",", ":")).encode()
        made += b" " * ((end - HEADER - len(made)) % 64)
        return raw[:8] + len(made).to_bytes(4, "little") + made + raw[end:]

    return resealed(change)


def first_id(token: int) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        start = start_of(raw)
        return raw[:start] + token.to_bytes(4, "little", signed=True) + raw[start + 4 :]

    return resealed(change)


SHAPE = [2 * ARCH.layers, ARCH.kv_heads, ARCH.head_dim]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "magic": flipped(3),
    "magic alone": lambda raw: raw[:8],
    "header's length": lambda raw: raw[:8] + b"\xff\xff\xff\xff" + raw[12:],
    "a header of 5,000 bytes": resealed(
        lambda raw: raw[:8] + (5000).to_bytes(4, "little") + raw[12 : start_of(raw)].ljust(5000) + raw[start_of(raw) :]
    ),
    "header cut off": lambda raw: raw[:40],
    "header's text": flipped(20),
    "an id": lambda raw: flipped(start_of(raw))(raw),
    "a value": flipped(-40),
    "digest": flipped(-1),
    "cut off": lambda raw: raw[:-1],
    "too long": lambda raw: raw + b"\0",
    "no digest": lambda raw: raw[:-32],
    "no JSON": resealed(lambda raw: raw[:HEADER] + b"[" * 52 + raw[64:]),
    "unknown field": header(more=1),
    "no tokens": header(tokens=0),
    "negative tokens": header(tokens=-4),
    "more tokens than there are": header(tokens=5),
    "more tokens than the context": header(tokens=ARCH.context + 1),
    "absurdly many tokens": header(tokens=1 << 31),
    "another key": header(key=OTHER),
    "another type": header(type="int8"),
    "an unknown type": header(type="float64"),
    "another shape": header(shape=[SHAPE[0] * 2, SHAPE[1], SHAPE[2]]),
    "an absurd shape": header(shape=[1 << 31, 1 << 31, 1 << 31]),
    "an id beyond the vocabulary": first_id(ARCH.vocab),
    "a negative id": first_id(-1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_file_is_removed_with_one_line_in_the_log(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    folder, path = saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    assert folder.load(KEY) is None
    assert not path.exists()
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


@given(data=st.data())
def test_no_bytes_at_all_can_make_it_raise(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, path = saved(tmp_path_factory.mktemp("warm"))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    if raw == path.read_bytes():
        return
    path.write_bytes(raw)
    assert folder.load(KEY) is None


def whole(tokens: int) -> Callable[[bytes], bytes]:
    """A file of so many tokens, as long as it should be."""

    def change(raw: bytes) -> bytes:
        made = header(tokens=tokens)(raw + bytes(32))
        one = (len(raw) - start_of(raw)) // len(IDS)
        return made[: start_of(made)] + bytes(one * tokens)

    return resealed(change)


TOO_MUCH = {"too short": header(tokens=ARCH.context), "beyond the context": whole(ARCH.context + 1)}


@pytest.mark.parametrize("damage", TOO_MUCH.values(), ids=TOO_MUCH)
def test_nothing_is_allocated_for_what_the_file_or_the_model_cannot_hold(
    tmp_path: Path, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))

    def refuse(*_: object) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(np, "empty", refuse)
    assert folder.load(KEY) is None


def test_a_file_as_long_as_the_context_is_loaded(tmp_path: Path) -> None:
    folder, path = saved(tmp_path)
    path.write_bytes(whole(ARCH.context)(path.read_bytes()))
    found = folder.load(KEY)
    assert found is not None
    assert found[0] == (0,) * ARCH.context


def test_another_models_file_under_the_same_name_is_not_used(tmp_path: Path) -> None:
    saved(tmp_path)
    other = WarmFolder(tmp_path / "warm", replace_arch(kv_heads=ARCH.kv_heads * 2), "float32")
    assert other.load(KEY) is None


def replace_arch(**facts: int) -> ModelArch:
    return msgspec.structs.replace(ARCH, **facts)


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege on Windows")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folder, path = saved(tmp_path)
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    assert folder.load(KEY) is None
    assert not path.is_symlink()
    assert elsewhere.exists()


# --- what is not saved ----------------------------------------------------------------------

MISFITS: dict[str, tuple[Sequence[int], Snapshot]] = {
    "no tokens": ((), snapshot_of(())),
    "other tokens": (IDS[:3], snapshot_of(IDS)),
    "another type": (IDS, snapshot_of(IDS, cache="int8")),
    "a layer too few": (IDS, Snapshot(4, snapshot_of(IDS).arrays[:-2])),
    "another length inside": (IDS, Snapshot(4, snapshot_of(IDS[:3]).arrays)),
    "an id beyond the vocabulary": ((5, 9, 2, ARCH.vocab), snapshot_of(IDS)),
    "a negative id": ((5, 9, 2, -1), snapshot_of(IDS)),
}


@pytest.mark.parametrize(("ids", "snapshot"), MISFITS.values(), ids=MISFITS)
def test_what_could_not_be_loaded_is_not_saved(
    tmp_path: Path, ids: Sequence[int], snapshot: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_in(tmp_path)
    assert not folder.save(KEY, ids, snapshot)
    assert folder.load(KEY) is None
    assert len(caplog.records) == 1


def test_a_full_disk_is_one_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    folder = folder_in(tmp_path)
    assert not folder.save(KEY, IDS, snapshot_of(IDS))
    assert "No space left" in caplog.text
    assert not list(folder.folder.iterdir())


# --- the folder's size ----------------------------------------------------------------------


def key(number: int) -> str:
    return f"{number:064x}"


def test_the_files_not_used_for_longest_go_first(tmp_path: Path) -> None:
    size = saved(tmp_path / "one")[1].stat().st_size
    folder = folder_in(tmp_path, limit_bytes=3 * size + 10)
    for number in range(3):
        assert folder.save(key(number), IDS, snapshot_of(IDS))
        os.utime(folder.folder / f"{key(number)}.kv", (1000 + number, 1000 + number))
    assert folder.load(key(0))  # used again, so now the newest
    assert folder.save(key(3), IDS, snapshot_of(IDS))
    assert {path.stem for path in folder.folder.iterdir()} == {key(0), key(2), key(3)}


def test_replacing_a_file_removes_no_other(tmp_path: Path) -> None:
    size = saved(tmp_path / "one")[1].stat().st_size
    folder = folder_in(tmp_path, limit_bytes=2 * size)
    for number in (0, 1, 1, 1):
        assert folder.save(key(number), IDS, snapshot_of(IDS))
    assert folder.load(key(0))


def test_a_prompt_that_would_fill_the_folder_alone_is_not_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = saved(tmp_path / "one")[1].stat().st_size
    folder = folder_in(tmp_path, limit_bytes=size - 1)
    assert not folder.save(KEY, IDS, snapshot_of(IDS))
    assert f"{size:,} bytes" in caplog.text


def test_what_a_power_cut_left_is_counted_and_other_files_are_not_touched(tmp_path: Path) -> None:
    folder, path = saved(tmp_path)
    size = path.stat().st_size
    left, strange = folder.folder / f".{OTHER}.kv.x1y2", folder.folder / "notes.txt"
    for each in (left, strange):
        each.write_bytes(b"x" * size)
        os.utime(each, (1000, 1000))
    assert replace(folder, limit_bytes=2 * size).save(key(1), IDS, snapshot_of(IDS))
    assert not left.exists()
    assert strange.exists()
    assert path.exists()


# --- keys -----------------------------------------------------------------------------------


def test_a_key_stays_the_same_for_the_same_bundle(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.copy_to(tmp_path))
    assert key_of(bundle, runtime="1.32.0") == key_of(open_bundle(bundles.TINY), runtime="1.32.0")
    folder_in(tmp_path).load(key_of(bundle, runtime="1.32.0"))  # it is one


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "model.onnx.data"])
def test_any_other_file_in_the_bundle_makes_another_key(tmp_path: Path, name: str) -> None:
    before = key_of(open_bundle(bundles.TINY), runtime="1.32.0")
    folder = bundles.copy_to(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    bundles.seal(folder)
    assert key_of(open_bundle(folder), runtime="1.32.0") != before


def test_another_runtime_makes_another_key() -> None:
    bundle = open_bundle(bundles.TINY)
    assert key_of(bundle, runtime="1.32.0") != key_of(bundle, runtime="1.33.0")


# --- with a model ---------------------------------------------------------------------------


def test_a_changed_prompt_replaces_the_old_one(tmp_path: Path) -> None:
    folder, changed = folder_in(tmp_path), (5, 9, 2, 301)
    for ids in (IDS, changed):
        assert folder.save(KEY, ids, snapshot_of(ids))
    found = folder.load(KEY)
    assert found is not None
    assert found[0] == changed
    assert same(found[1], snapshot_of(changed))


def test_a_folder_that_cannot_be_written_costs_the_saving_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "warm").write_bytes(b"a file where the folder should be")
    assert not folder_in(tmp_path).save(KEY, IDS, snapshot_of(IDS))
    assert caplog.records


@pytest.mark.parametrize("source", [bundles.TINY, bundles.INT8], ids=lambda path: path.name)
def test_a_model_goes_on_from_a_loaded_prefix_as_if_it_had_read_it(tmp_path: Path, source: Path) -> None:
    bundle = open_bundle(source)
    ids, rest = tuple(range(10, 50)), (7, 8, 9)
    cache = bundle.manifest.cache
    read = open_rows(bundle, threads=1, most_rows=1)
    read.read(0, ids)
    folder_in(tmp_path, cache=cache).save(KEY, ids, read.snapshot(0, len(ids)))
    restored = open_rows(bundle, threads=1, most_rows=1)
    found = folder_in(tmp_path, cache=cache).load(KEY)
    assert found is not None
    restored.restore(0, found[1])
    assert restored.length(0) == len(ids)
    assert np.array_equal(restored.read(0, rest), read.read(0, rest))
