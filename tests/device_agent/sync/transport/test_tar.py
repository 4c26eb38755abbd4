"""Repositories in a tar file: what every program writes, and everything that hostile ones do (G4)."""

import contextlib
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.sync.transport import tar
from device_agent.sync.transport.tar import TarSource, index
from edgekit.errors import CorruptRelease, NotInRepository, Unreachable, UsageError
from edgekit.release.names import channel_target, delta_target, pack_path, release_target, target_path
from tests.device_agent.sync.transport.opening import fetched, opened

PACK = pack_path("ab" * 32)
TIMESTAMP = "metadata/timestamp.json"
DATA = random.Random(3).randbytes(700_001)
LONG = target_path(delta_target("m" * 60 + "-1.0", "m" * 60 + "-1.1"), "c" * 64)
FILES = {
    TIMESTAMP: b"{}",
    "metadata/12.root.json": b"{1}",
    "metadata/3.snapshot.json": b"{2}",
    target_path(release_target("tiny-1.0"), "a" * 64): b"{3}",
    target_path(channel_target("stable"), "b" * 64): b"",
    LONG: b"{4}",
    PACK: DATA,
}

Edit = Callable[[tarfile.TarInfo], object]


def packed(
    files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, *, prefix: str = "", edit: Edit | None = None
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(prefix + path)
            member.size = len(data)
            member.mtime = 1.5  # a pax header of its own
            if edit is not None:
                edit(member)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def saved(folder: Path, raw: bytes) -> TarSource:
    path = folder / "stick.tar"
    path.write_bytes(raw)
    return TarSource(path)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_c16_a_tar_is_read_in_place(tmp_path: Path, form: int, prefix: str) -> None:
    source = saved(tmp_path, packed(FILES, form, prefix=prefix))
    for path, data in FILES.items():
        assert source.read(path, limit=1 << 20) == data
    for start, length in ((0, len(DATA)), (1, 300_000), (700_000, 1)):
        assert fetched(source, PACK, DATA, start=start, length=length) == DATA[start : start + length]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stick.tar"], "nothing is extracted"
    source.close()
    assert source.read(TIMESTAMP, limit=9) == b"{}", "and it can be used again"
    source.close()


def test_folders_in_it_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    with tarfile.open(tmp_path / "stick.tar", "w") as archive:
        archive.add(folder, arcname=".")
    source = opened(str(tmp_path / "stick.tar"))
    assert source.read(LONG, limit=99) == b"{4}"
    assert source.holds == "packs"
    assert source.name.endswith("stick.tar")
    source.close()


def test_two_streams_do_not_disturb_each_other(tmp_path: Path) -> None:
    source = saved(tmp_path, packed(FILES))
    one = source.stream(PACK, start=0, length=len(DATA), size=len(DATA))
    head = next(one)
    assert source.read(TIMESTAMP, limit=9) == b"{}"
    assert head + b"".join(one) == DATA
    source.close()


def test_errors_are_those_of_a_folder(tmp_path: Path) -> None:
    source = saved(tmp_path, packed(FILES))
    with pytest.raises(NotInRepository, match=r"13\.root"):
        source.read("metadata/13.root.json", limit=9)
    with pytest.raises(CorruptRelease, match="may have 9"):
        source.read(PACK, limit=9)
    with pytest.raises(CorruptRelease, match="should have 9"):
        list(source.stream(PACK, start=0, length=1, size=9))
    source.close()
    with pytest.raises(Unreachable, match="is not there"):
        TarSource(tmp_path / "gone.tar").read(TIMESTAMP, limit=9)
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(Unreachable):
        TarSource(tmp_path / "folder.tar").read(TIMESTAMP, limit=9)


@pytest.mark.parametrize("at", [104, 112, 136, 147], ids=["mode", "owner", "first of the time", "last of the time"])
def test_g04_a_header_that_lost_a_bit_is_noticed_though_nobody_needs_what_it_says(tmp_path: Path, at: int) -> None:
    raw = bytearray(packed({TIMESTAMP: b"{}"}))
    raw[at] ^= 1
    with pytest.raises(CorruptRelease, match="checksum of a header is wrong"):
        saved(tmp_path, bytes(raw)).read(TIMESTAMP, limit=9)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_g04_what_is_no_file_is_no_tar_and_nobody_waits_for_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.tar")
    with pytest.raises(Unreachable, match="is no file"):
        opened(str(tmp_path / "x.tar")).read(TIMESTAMP, limit=100)


def test_g01_a_tar_that_shrinks_while_it_is_read_is_out_of_reach(tmp_path: Path) -> None:
    source = saved(tmp_path, packed({PACK: DATA}))
    stream = source.stream(PACK, start=0, length=len(DATA), size=len(DATA))
    next(stream)
    (tmp_path / "stick.tar").write_bytes(b"")
    with pytest.raises(Unreachable, match="became shorter"):
        list(stream)
    source.close()
    with pytest.raises(Unreachable, match="was closed"):
        list(source._pieces(PACK, 0, 1))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "A.TAR.XZ", "a.tar.bz2", "a.zip", "a.tar.zst"])
def test_a_compressed_archive_is_a_mistake_that_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="compressed"):
        opened(f"/media/{name}")


# --- G4 ---------------------------------------------------------------------------------------


def linked(kind: bytes) -> bytes:
    def edit(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    return packed({PACK: b""}, edit=edit)


def twice() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for data in (b"good", b"evil"):
            member = tarfile.TarInfo(PACK)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def with_pax(**records: str) -> bytes:
    def edit(member: tarfile.TarInfo) -> None:
        member.pax_headers = {name.replace("__", "."): value for name, value in records.items()}

    return packed({PACK: DATA}, edit=edit)


def header(name: bytes, kind: bytes, size: bytes, data: bytes = b"") -> bytes:
    """A block with a right checksum, whatever it says."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block) + data + b"\0" * (-len(data) % 512)


END = b"\0" * 1024
ONE = header(b"metadata/timestamp.json", b"0", b"00000000002\0", b"{}")

HOSTILE: dict[str, bytes] = {
    "parent": packed({"../metadata/timestamp.json": b""}),
    "parent inside": packed({"packs/../metadata/timestamp.json": b""}),
    "absolute": header(b"/metadata/timestamp.json", b"0", b"0\0") + END,
    "drive": packed({"C:/x": b""}),
    "backslash": packed({"metadata\\timestamp.json": b""}),
    "another file": packed({**FILES, "autorun.inf": b"x"}),
    "another role": packed({"metadata/1.evil.json": b""}),
    "another case": packed({"METADATA/timestamp.json": b""}),
    "hidden": packed({"packs/.x": b""}),
    "dot twice": packed({"././metadata/timestamp.json": b""}),
    "newline": packed({TIMESTAMP + "\n": b""}),
    "symbolic link": linked(tarfile.SYMTYPE),
    "hard link": linked(tarfile.LNKTYPE),
    "pipe": linked(tarfile.FIFOTYPE),
    "device": linked(tarfile.CHRTYPE),
    "contiguous": linked(tarfile.CONTTYPE),
    "sparse": header(PACK.encode(), b"S", b"0\0") + END,
    "folder with bytes": header(b"packs", b"5", b"00000001000\0", b"x" * 512) + END,
    "twice": twice(),
    "twice by a dot": packed({PACK: b"a", f"./{PACK}": b"b"}),
    "pax size": with_pax(size="5"),
    "pax link": with_pax(linkpath="/etc/passwd"),
    "pax sparse": with_pax(GNU__sparse__major="1"),
    "pax global": header(b"g", b"g", b"00000000012\0", b"11 path=x\n") + ONE + END,
    "pax without end": header(b"x", b"x", b"00000000004\0", b"9 pa") + ONE + END,
    "pax length zero": header(b"x", b"x", b"00000000010\0", b"0 path=\n") + ONE + END,
    "pax length beyond": header(b"x", b"x", b"00000000011\0", b"99 path=\n") + ONE + END,
    "pax length short": header(b"x", b"x", b"00000000013\0", b"4 path=abc\n") + ONE + END,
    "pax of a megabyte": header(b"x", b"x", b"00004000000\0", b"16 comment=abcd\n" * (1 << 16)) + ONE + END,
    "long name of a megabyte": header(b"L", b"L", b"00004000000\0", b"a" * (1 << 20)) + ONE + END,
    "two long names": header(b"L", b"L", b"00000000027\0", TIMESTAMP.encode()) * 2 + ONE + END,
    "long name of nothing": header(b"L", b"L", b"00000000005\0", b"\xff\xfe\0\0\0") + ONE + END,
    "negative size": header(PACK.encode(), b"0", b"-0000000001\0") + END,
    "binary size": header(PACK.encode(), b"0", b"\x80" + b"\xff" * 11) + END,
    "no size": header(PACK.encode(), b"0", b"") + END,
    "size beyond the end": header(PACK.encode(), b"0", b"77777777777\0") + END,
    "wrong checksum": ONE.replace(b"timestamp", b"timestamq") + END,
    "no mark": ONE.replace(b"ustar", b"USTAR") + END,
    "not a tar": b"PK\x03\x04" + bytes(600),
    "cut in a header": packed(FILES)[:300],
    "cut in a file": packed(FILES)[:-400_000],
    "without an end": ONE,
    "empty": b"",
    "not ASCII": packed({"packs/\u00e9": b""}),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_g04_a_hostile_tar_is_refused_whole(tmp_path: Path, raw: bytes) -> None:
    source = saved(tmp_path, raw)
    for _ in range(2):
        with pytest.raises(CorruptRelease, match=r"stick\.tar is no tar file of a repository"):
            source.read(TIMESTAMP, limit=1 << 20)
    assert source._handle is None


def test_the_headers_of_these_tests_are_such_that_only_what_they_say_is_wrong(tmp_path: Path) -> None:
    assert saved(tmp_path, ONE + END).read(TIMESTAMP, limit=9) == b"{}"


def test_g04_the_number_of_members_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MOST_HEADERS", 5)
    source = saved(tmp_path, packed({f"metadata/{n}.root.json": b"" for n in range(9)}, tarfile.GNU_FORMAT))
    with pytest.raises(CorruptRelease, match="more than 5"):
        source.read(TIMESTAMP, limit=9)


def test_g04_what_stands_after_the_end_does_not_count() -> None:
    evil = packed({"metadata/9.root.json": b"evil"})
    assert index(io.BytesIO(ONE + END + evil), len(ONE + END + evil), name="x").keys() == {TIMESTAMP}  # type: ignore[arg-type]


@given(st.binary(max_size=2_000))
def test_no_bytes_make_anything_but_an_index_or_one_error(raw: bytes) -> None:
    with contextlib.suppress(CorruptRelease):
        index(io.BytesIO(raw), len(raw), name="x")  # type: ignore[arg-type]


@given(st.data())
def test_a_spoilt_tar_never_reaches_outside_of_itself(data: st.DataObject) -> None:
    raw = bytearray(packed({TIMESTAMP: b"{}", LONG: b"x" * 600, PACK: b"y" * 900}))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = index(io.BytesIO(raw), len(raw), name="x")  # type: ignore[arg-type]
    except CorruptRelease:
        return
    assert all(0 <= member.offset <= member.offset + member.size <= len(raw) for member in found.values())
