"""Files of an installed release that its disk lost, put right from the repository or another release.

Installed files are never written to: they are read only, open in a running model, and may be other releases' too. What
is damaged is put together beside, like an update, and takes the old file's name.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from device_agent.releases.records import Installed
from device_agent.sync.content import disk
from device_agent.sync.content.have import Have
from device_agent.sync.content.plan import plan
from device_agent.sync.content.seal import settle
from device_agent.sync.content.stage import Tell, stage
from device_agent.sync.records import Source, Stop
from edgekit.files import fsync_folder


def repair(
    installed: Installed,
    source: Source,
    *,
    paths: Collection[str],
    bench: Path,
    others: Sequence[Installed] = (),
    tell: Tell,
    stop: Stop,
    reserve_bytes: int = 0,
) -> None:
    """Replace the damaged files of a release, whose `paths` a scrub found. Only their damaged chunks are fetched.

    `others` are releases that may hold the same chunks; `bench` is a folder on the same disk, for this repair only:
    what an earlier try left in it is used, and it is gone at the end. Each file is replaced at once, and durably, so
    the release's folders must be writable. Raises what `stage` and `seal` raise; what was not replaced is as it was.
    """
    files = tuple(file for file in installed.release.files if file.path in paths)
    part = msgspec.structs.replace(installed.release, files=files)
    work = plan(part, Have.of((*others, installed)), holds=source.holds)
    stage(work, bench, source, tell=tell, stop=stop, reserve_bytes=reserve_bytes)
    with disk.disk_errors(installed.folder, 0):
        for file in files:
            settle(bench, file)
        for file in files:
            _replace(bench / file.path, disk.below(installed.folder, file.path))
        disk.remove(bench)


def _replace(new: Path, old: Path) -> None:
    new.chmod(0o444)
    if os.name == "nt" and old.is_file():
        old.chmod(0o600)  # Windows replaces nothing that is read only
    new.replace(old)
    fsync_folder(old.parent)
