"""Releases on a device's disk, put there without a repository: staged, sealed and admitted as the link does it."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from device_agent.releases.records import Ref
from device_agent.releases.store import MANIFEST_FILE, Store
from edgekit import contract
from edgekit.adapter import open_adapter
from edgekit.bundle import read_manifest
from edgekit.release.manifest import FORMAT, Chunk, HealthFloor, Kind, Pack, Release, ReleaseFile

GRID = 1 << 20
NO_SOAK = HealthFloor(soak_s=0.0)
CHANNEL = "stable"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file(path: str, data: bytes) -> ReleaseFile:
    pieces = [data[at : at + GRID] for at in range(0, len(data), GRID)]
    chunks = tuple(Chunk(len(piece), sha256(piece), 0, 0, len(piece)) for piece in pieces)
    return ReleaseFile(path, len(data), sha256(data), chunks)


def release_of(
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    sequence: int,
    health: HealthFloor = NO_SOAK,
    kind: Kind = "model",
    base: str | None = None,
) -> Release:
    """A manifest. Its packs are of no use here."""
    return Release(
        format=FORMAT,
        kind=kind,
        name=name,
        version=version,
        sequence=sequence,
        files=tuple(_file(path, data) for path, data in sorted(files.items())),
        packs=(Pack("0" * 64, GRID),),
        health=health,
        base=base,
    )


def ref_of(release: Release) -> Ref:
    return Ref(id=release.id, kind=release.kind, sequence=release.sequence, sha256=sha256(release.to_bytes()))


def put(store: Store, release: Release, files: Mapping[str, bytes]) -> Ref:
    """Have a release whole in staging, sealed."""
    ref = ref_of(release)
    folder = store.staging(ref)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / MANIFEST_FILE).write_bytes(release.to_bytes())
    return ref


def install(
    store: Store, version: str, *, name: str = "tiny", health: HealthFloor = NO_SOAK, weights: bytes | None = None
) -> Ref:
    """Have a release on the disk whose files only look like a bundle's. Its sequence is its version's number."""
    files = {"bundle.json": b"{}", "text/card.md": b"", "weights": weights or f"weights of {name} {version}".encode()}
    ref = put(store, release_of(name, version, files, sequence=int(version), health=health), files)
    return store.admit(ref).ref


def install_folder(store: Store, folder: Path, *, sequence: int, health: HealthFloor = NO_SOAK) -> Ref:
    """Have a real bundle, or a real adapter, on the disk as a release."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if (folder / contract.ADAPTER_MANIFEST_FILE).is_file():
        adapter = open_adapter(folder).manifest
        release = release_of(
            adapter.name,
            adapter.version,
            files,
            sequence=sequence,
            health=health,
            kind="adapter",
            base=adapter.base.name,
        )
    else:
        manifest = read_manifest(folder)
        release = release_of(manifest.name, manifest.version, files, sequence=sequence, health=health)
    return store.admit(put(store, release, files)).ref


def rot(path: Path, at: int = 0) -> None:
    """Flip a bit of a file that nobody may write, and leave its length as it is."""
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)


def wreck(folder: Path) -> None:
    """A folder that is gone, whatever its modes say."""
    for place in [folder, *folder.rglob("*")]:
        if place.is_dir():
            place.chmod(0o755)
    shutil.rmtree(folder)
