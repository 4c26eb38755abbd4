"""Run as a program: an update of as many MiB as its argument says, by differences, whole chunks, copies and links.

Says how much more memory it took at its peak than the program did before there was any release, in bytes.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from device_agent.releases.records import Installed, Ref
from device_agent.sync.content import Have, plan, seal, stage
from device_agent.sync.content.disk import write_at
from edgekit.release.codec import THOROUGH, difference, pack
from edgekit.release.delta import Delta, Difference
from edgekit.release.manifest import Chunk, Pack, Release, ReleaseFile
from edgekit.release.names import pack_path
from tests.contents import FakeSource, Never, contents, make, put, sha256, with_flips
from tests.device_agent.bundles import TINY

MIB = 1 << 20
PER_PACK = 16


def content(i: int, version: int) -> bytes:
    """A chunk that costs little to make. In the next version every fourth is the same, and the others nearly so."""
    block = b"".join(hashlib.sha256(f"{i}/{j}".encode()).digest() for j in range(128))
    data = block * (MIB // len(block))
    return with_flips(data, *range(7, MIB, 9973)) if version and i % 4 else data


class Generated(FakeSource):
    """Packs of 16 whole chunks are made when they are asked for; all other files are in memory."""

    whole: dict[str, int]

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        if path not in self.whole:
            yield from super().stream(path, start=start, length=length, size=size)
            return
        while length:
            i, at = divmod(start, MIB)
            some = content(self.whole[path] + i, 1)[at : at + length]
            self.sent_bytes += len(some)
            yield some
            start, length = start + len(some), length - len(some)


def release(version: int, count: int) -> Release:
    """The tiny bundle with one large file more. Its packs have made-up names: chunks alone are hashed."""
    small = make(contents(TINY), name="tiny-llama").release
    digest = hashlib.sha256()
    chunks: list[Chunk] = []
    first = len(small.packs)
    for i in range(count):
        data = content(i, version)
        digest.update(data)
        chunks.append(Chunk(MIB, sha256(data), first + i // PER_PACK, i % PER_PACK * MIB, MIB))
    packs = (*small.packs, *(Pack(sha256(b"%d" % at), PER_PACK * MIB) for at in range(0, count, PER_PACK)))
    weights = ReleaseFile("weights", count * MIB, digest.hexdigest(), tuple(chunks))
    return msgspec.structs.replace(small, files=(*small.files, weights), packs=packs)


def differences(new: Release, old: Release) -> tuple[Delta, dict[str, bytes]]:
    """Of every other chunk, by each codec in turn."""
    found: list[Difference] = []
    packs: list[Pack] = []
    files: dict[str, bytes] = {}
    for i, (ours, theirs) in enumerate(zip(new.files[-1].chunks, old.files[-1].chunks, strict=True)):
        if i % 2:
            codec, stored = pack(difference(content(i, 1), content(i, 0)), (THOROUGH[i // 2 % 3],))
            found.append(Difference(ours.sha256, theirs.sha256, len(packs), 0, len(stored), codec))
            packs.append(Pack(sha256(stored), len(stored)))
            files[pack_path(sha256(stored))] = stored
    return Delta(format=1, base="a-1", release=new.id, packs=tuple(packs), differences=tuple(found)), files


def memory_bytes(line: str) -> int:
    """What Linux says of this process: VmRSS, or VmHWM for the most since it was forgotten."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(value.split()[1]) * 1024 for value in status.splitlines() if value.startswith(f"{line}:"))


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main(count: int, folder: Path) -> None:
    """Print the memory that it took, the bytes that came, and those of all files."""
    before = memory_bytes("VmRSS")
    old, new = release(0, count), release(1, count)
    put(folder / "old", contents(TINY))
    for i in range(count):
        write_at(folder / "old" / "weights", i * MIB, content(i, 0))
    hint, files = differences(new, old)
    source = Generated(files)
    source.whole = {pack_path(sha256(b"%d" % at)): at for at in range(0, count, PER_PACK)}
    installed = Installed(Ref(id=old.id, kind="model", sequence=1, sha256=sha256(b"old")), folder / "old", old)
    forget_the_peak()
    work = plan(new, Have.of([installed]), [hint], holds="packs")
    stage(work, folder / "new", source, tell=lambda _: None, stop=Never())
    seal(folder / "new", new, new.to_bytes())
    sys.stdout.write(f"{memory_bytes('VmHWM') - before} {source.sent_bytes} {new.file_bytes}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
