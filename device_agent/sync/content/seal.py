"""The last look at a release before it gets its place: on the disk, read again from there, and nothing else beside it.

Chunks were hashed on their way to the disk; whole files are hashed on their way back. What the page cache holds proves
nothing of the disk, so it is dropped between. A file may have been changed since, by a bad disk or by somebody.
"""

import os
from pathlib import Path

from device_agent.sync.content import disk, journal
from edgekit.adapter import open_adapter
from edgekit.bundle import open_bundle
from edgekit.errors import BundleError, CorruptRelease, UnsupportedFormat, UnsupportedRelease
from edgekit.files import fsync_folder
from edgekit.release.manifest import Release, ReleaseFile

RECORD = ".release.json"
"""The signed manifest, in the release's own folder."""


def seal(folder: Path, release: Release, manifest: bytes) -> None:
    """Hold a staged folder against what was signed, and make every byte durable, the manifest in it too.

    Raises CorruptRelease (a file is not what was signed, or is not listed, or a graph's weights are outside),
    UnsupportedRelease, NoSpace, and StorageFailed for a file that the disk could not keep: that one is removed.
    """
    with disk.disk_errors(folder, len(manifest)):
        _refuse_strangers(folder, release)
        for file in release.files:
            settle(folder, file)
        _refuse_foreign_weights(folder, release)
        _write_record(folder / RECORD, manifest)
        disk.remove(folder / journal.NAME)
        for path in sorted(disk.folders_of(file.path for file in release.files)):
            fsync_folder(folder / path)
        fsync_folder(folder)


def _refuse_strangers(folder: Path, release: Release) -> None:
    """Raises CorruptRelease for anything in the folder that is neither a plain file of the release nor its folder."""
    if folder.is_symlink() or not folder.is_dir():
        raise CorruptRelease(f"{folder} is no folder")
    paths = {file.path for file in release.files} | {journal.NAME, RECORD}
    folders = disk.folders_of(paths)
    for entry in disk.entries(folder):
        path = disk.relative(folder, entry)
        if entry.is_dir(follow_symlinks=False):
            is_known = path in folders
        else:
            is_known = path in paths and entry.is_file(follow_symlinks=False)
        if not is_known:
            raise CorruptRelease(f"{path[:200]!r} is in its folder, and is no file of it")


def settle(folder: Path, file: ReleaseFile) -> None:
    """Make a file durable, then read it from the disk. Raises CorruptRelease, and OSError having removed it."""
    path = disk.inside(folder, file.path)
    try:
        sha256 = _durable_sha256(path, file)
    except FileNotFoundError as error:
        raise CorruptRelease(f"{file.path} is missing") from error
    except OSError as error:
        # After a failed fsync nobody knows what is on the disk, and asking again would say that all is well.
        disk.remove(path)
        raise OSError(error.errno, error.strerror, str(path)) from error
    if sha256 != file.sha256:
        raise CorruptRelease(f"{file.path} is not what was signed")


def _durable_sha256(path: Path, file: ReleaseFile) -> str | None:
    handle = disk.open_to_sync(path)
    try:
        os.fsync(handle)
        if os.fstat(handle).st_size != file.size:
            return None
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return disk.hash_handle(handle, lambda: None)
    finally:
        os.close(handle)


def _refuse_foreign_weights(folder: Path, release: Release) -> None:
    """A bundle that its own manifest does not describe, or whose graph reads other files, is not opened even once."""
    try:
        inside = (open_bundle(folder) if release.kind == "model" else open_adapter(folder)).manifest
    except UnsupportedFormat as error:
        raise UnsupportedRelease(error.problem) from error
    except BundleError as error:
        raise CorruptRelease(str(error)) from error
    if (inside.name, inside.version) != (release.name, release.version):
        raise CorruptRelease(f"it holds {inside.name} {inside.version}")


def _write_record(path: Path, manifest: bytes) -> None:
    disk.remove(path)
    disk.write_at(path, 0, manifest)
    handle = disk.open_to_sync(path)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
