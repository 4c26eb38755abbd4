"""Store: the releases of this device and the record of them, on disk.

Durable, in this order: a release's files (whoever sealed it) -> its name in releases/ -> the record that names it ->
the end of that which no record names. A power cut between any two leaves more on the disk than is needed, never less.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from device_agent.releases.leases import Leases
from device_agent.releases.records import Installed, Line, Ref, State
from device_agent.releases.recovering import is_recovered, rebuilt, superseded
from device_agent.releases.removing import READABLE, WRITABLE, guard, remove, remove_file, set_mode
from edgekit.errors import CorruptRelease, StorageFailed, SyncError
from edgekit.files import fsync_folder, locked
from edgekit.release.manifest import MAX_RELEASE_BYTES, parse
from edgekit.slots import Slots

log = logging.getLogger(__name__)

SYNC_FOLDER = "sync"
"""Of the agent's folder."""
RELEASES, STAGING, TRASH, LEASES, NOTES = "releases", "staging", "trash", "leases", "notes"
MANIFEST_FILE = ".release.json"
STATE, STATE_LOCK = "state", "state.lock"

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EIO)
"""What a disk says of a file that is not there, or cannot be read. Other errors (no handles left, say) pass."""

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.[0-9a-f]{12}")


class Store:
    """What is in `home`/sync. Nothing is made there before something is to be written. Any thread, any process.

    Whoever changes what is installed holds the link's lock; the record has a lock of its own besides, held for
    a moment by each change of it.
    """

    def __init__(self, home: Path, *, leases: Leases | None = None) -> None:
        self._home = home
        self.folder = home / SYNC_FOLDER
        self._releases, self._staging, self._trash = (self.folder / name for name in (RELEASES, STAGING, TRASH))
        self._slots = Slots(self.folder, STATE)
        self._leases = leases or Leases(self.folder / LEASES)
        self._turn = threading.RLock()
        self._is_ready = False
        self._known: dict[str, tuple[object, Installed | None]] = {}
        self._told: set[str] = set()
        self._doubts: frozenset[Ref] = frozenset()

    # --- the record -------------------------------------------------------------------------------

    def state(self) -> State:
        """The record. If both slots of it are damaged it is made anew from what is on disk, loudly.

        Raises StorageFailed if the disk cannot be read.
        """
        return self.seen()[0]

    def seen(self) -> tuple[State, int]:
        """The record and its number, which grows with each change; 0 for one that was never written, or is lost."""
        with self._turn:
            slotted = self._slots.read()
            if slotted.payload is not None:
                try:
                    return msgspec.json.decode(slotted.payload, type=State), slotted.seq
                except (msgspec.DecodeError, RecursionError) as error:
                    self._tell_once(f"{self.folder / STATE}: {error}")
            installed = self.installed()
            if installed:
                found = ", ".join(one.ref.id for one in installed)
                self._tell_once(f"the record of releases in {self.folder} is lost; the newest of these serve: {found}")
            return rebuilt(installed), 0

    def write(self, state: State) -> None:
        """Replace the record, durably. Raises StorageFailed."""
        self.change(lambda _: state)

    def change(self, event: Callable[[State], State]) -> State:
        """Replace the record by what `event` makes of it, durably; nobody else changes it meanwhile.

        Raises what `event` raises, and StorageFailed.
        """
        self._prepare()
        with self._turn, _said(self.folder), locked(self.folder / STATE_LOCK):
            before, seq = self.seen()
            after = event(before)
            if after != before or not seq:
                self._slots.write(msgspec.json.encode(after))
            return after

    # --- releases ---------------------------------------------------------------------------------

    def installed(self) -> tuple[Installed, ...]:
        """Every release that is whole on disk, as far as its manifest and its files' sizes tell."""
        with self._turn, _said(self._releases):
            names = _names(self._releases)
            self._known = {name: known for name, known in self._known.items() if name in names}
            found = [self._open(name) for name in sorted(names)]
            return tuple(one for one in found if one is not None and not missing(one))

    def serving(self) -> tuple[Installed, ...]:
        """What is to serve now: of each line the one on trial once it is past its health check, else the active one.

        One whose files are gone, or that is in doubt, gives way to the one before it, if that is better.
        """
        state, here = self.state(), {one.ref: one for one in self.installed()}
        brought: list[tuple[Line, Installed]] = []
        for line in sorted(state.lines, key=is_recovered):
            one = self._serving(line, here)
            again = any(one == other for _, other in brought)
            if one is None or again or (is_recovered(line) and any(_same_model(one, other) for _, other in brought)):
                continue
            brought.append((line, one))
        return tuple(one for _, one in brought)

    @property
    def doubts(self) -> frozenset[Ref]:
        """Releases that could not be loaded because their bytes are not what was signed, as far as this process knows.

        What the disk says of them may change; so nothing of it is recorded.
        """
        return self._doubts

    def doubt(self, ref: Ref) -> None:
        """It is damaged, it seems: the scrub is to look at it, and the one before it serves meanwhile."""
        with self._turn:
            self._doubts |= {ref}

    def believe(self, ref: Ref) -> None:
        """Every byte of it was hashed, and is right."""
        with self._turn:
            self._doubts -= {ref}

    def staging(self, ref: Ref) -> Path:
        """The folder in which a release is put together; what is in it already stays. Raises StorageFailed."""
        self._prepare()
        folder = self._staging / ref.folder
        with _said(folder):
            folder.mkdir(mode=WRITABLE, exist_ok=True)
        return folder

    def admit(self, ref: Ref) -> Installed:
        """Give a release that was put together and sealed its place, durably. Raises CorruptRelease or StorageFailed.

        One that has its place already keeps it.
        """
        self._prepare()
        staged, place = self._staging / ref.folder, self._releases / ref.folder
        with self._turn, _said(place):
            self.change(lambda state: state)  # from now on there is a record: without one, it was lost
            if not place.is_dir():
                self._check_sealed(ref, staged)
                guard(staged)
                staged.rename(place)
                set_mode(place, READABLE)
            fsync_folder(self._releases)
            found = self._open(ref.folder)
        if found is None or found.ref != ref:
            raise CorruptRelease(f"{ref.id}: what lies in {place} is another one")
        return found

    def find(self, ref: Ref) -> Installed | None:
        """A release, if it is whole on disk as far as its manifest and its files' sizes tell."""
        return next((one for one in self.installed() if one.ref == ref), None)

    @contextlib.contextmanager
    def repairing(self, installed: Installed) -> Iterator[None]:
        """Inside of the block the release's folders can be written."""
        folders = [Path(place) for place, _, _ in os.walk(installed.folder)]
        for folder in folders:
            set_mode(folder, WRITABLE)
        try:
            yield
        finally:
            guard(installed.folder)
            set_mode(installed.folder, READABLE)

    # --- who uses what ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def lease(self, ref: Ref) -> Iterator[None]:
        """Inside of the block no collection, of any process, takes this release."""
        give_back = self.hold(ref)
        try:
            yield
        finally:
            give_back()

    def hold(self, ref: Ref) -> Callable[[], None]:
        """A lease without a block: it ends when what this returns is called, or with the process.

        Where nothing can be written the release is open without: what serves is kept by the record, too.
        """
        try:
            self._prepare()
            lease = self._leases.take(ref.folder)
        except (OSError, StorageFailed) as error:
            log.warning("%s is open without a lease: %s", ref.id, error)
            return lambda: None
        return lambda: self._leases.give_back(lease)

    # --- what may go ------------------------------------------------------------------------------

    def collect(self, wanted: Collection[Ref] = ()) -> int:
        """Delete what no line needs and nobody has open; the bytes that this frees. Raises StorageFailed.

        Those that are `wanted` stay: one that is whole may not be in the record yet. Of staged ones the one that was
        worked on last stays too: the next run goes on with it.
        """
        self._prepare()
        with self._turn, _said(self.folder):
            models = {one.ref.sha256: one.release.name for one in self.installed()}
            state = self.change(lambda found: superseded(found, models))
            kept = {ref.folder for ref in (*state.kept(), *wanted)} | self._leases.held()
            gone = [self._releases / name for name in _names(self._releases) if name not in kept]
            if self._discard(gone):
                fsync_folder(self._releases)  # before a file of it is deleted: what is there is whole
            self._discard(_abandoned(self._staging, {ref.folder for ref in wanted}))
            for name in _names(self.folder / NOTES) - _names(self._releases):
                remove_file(self.folder / NOTES / name)
        return self.empty_trash()

    def empty_trash(self) -> int:
        """Delete what a collection has put aside; the bytes that this frees. What cannot be deleted stays, and is told.

        For a start too: a collection may have been cut off.
        """
        freed = 0
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._trash)):  # noqa: PTH208 - names are all that is needed
                try:
                    freed += remove(self._trash / name)
                except OSError as error:
                    log.warning("%s cannot be deleted yet: %s", self._trash / name, error)
        return freed

    def remove_stale_leases(self) -> None:
        """Those of processes that died."""
        self._leases.held()

    # ----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """The folders. Whatever a process before us left in them that was not on the disk yet, is from now on."""
        with self._turn:
            if self._is_ready:
                return
            with _said(self.folder):
                made = _make(self.folder)
                for name in (RELEASES, STAGING, TRASH, LEASES, NOTES):
                    (self.folder / name).mkdir(mode=0o700, exist_ok=True)
                fsync_folder(self._releases)
                fsync_folder(self.folder)
                for folder in dict.fromkeys((self._home, *made)):
                    fsync_folder(folder)
            self._is_ready = True

    def _open(self, name: str) -> Installed | None:
        """The release in a folder; None, and a line in the log, if there is none that its name fits."""
        folder = self._releases / name
        try:
            found = (folder / MANIFEST_FILE).stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._known.get(name, (None, None))[0] != stamp:
                self._known[name] = (stamp, _read(folder))
            return self._known[name][1]
        except (OSError, SyncError) as error:
            if isinstance(error, OSError) and error.errno not in _GONE:
                raise
            self._tell_once(f"{folder} is no release: {error}")
            return None

    def _check_sealed(self, ref: Ref, staged: Path) -> None:
        try:
            found = _read(staged)
        except FileNotFoundError as error:
            raise CorruptRelease(f"{ref.id} was not sealed") from error
        if found is None or found.ref != ref:
            raise CorruptRelease(f"{ref.id}: its staging folder holds another release")

    def _serving(self, line: Line, here: dict[Ref, Installed]) -> Installed | None:
        wanted = [line.trial if line.soaking else None, line.active, line.previous]
        refs = [ref for ref in wanted if ref is not None]
        whole = [here[ref] for ref in refs if ref in here]
        one = next((found for found in whole if found.ref not in self._doubts), whole[0] if whole else None)
        if refs and (one is None or one.ref != refs[0]):
            instead = "and nothing" if one is None else one.ref.id
            self._tell_once(f"{refs[0].id} of {line.channel} is not whole on disk; {instead} serves instead")
        return one

    def _discard(self, folders: Iterable[Path]) -> int:
        """Move them out of the way; how many could be."""
        moved = 0
        for folder in folders:
            set_mode(folder, WRITABLE)  # a folder that changes its parent is written to
            try:
                folder.rename(self._trash / f"{folder.name}.{secrets.token_hex(3)}")
                moved += 1
            except OSError as error:  # Windows: somebody has it open
                log.warning("%s cannot be collected yet: %s", folder, error)
        return moved

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            log.error("%s", sentence)


def missing(installed: Installed) -> tuple[str, ...]:
    """Files of a release that are not there, or have not the length that was signed. A look at the folder, no more."""
    return tuple(
        file.path for file in installed.release.files if not _has_size(installed.folder / file.path, file.size)
    )


def _has_size(path: Path, size: int) -> bool:
    """Raises OSError for what may be otherwise in a moment."""
    try:
        found = path.lstat()
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _read(folder: Path) -> Installed | None:
    """The release whose manifest is in a folder; None if the folder is called otherwise."""
    with (folder / MANIFEST_FILE).open("rb") as stream:
        raw = stream.read(MAX_RELEASE_BYTES + 1)
    if len(raw) > MAX_RELEASE_BYTES:
        raise CorruptRelease(f"its manifest is larger than {MAX_RELEASE_BYTES:,} bytes")
    release = parse(raw)
    digest = hashlib.sha256(raw).hexdigest()
    ref = Ref(id=release.id, kind=release.kind, sequence=release.sequence, sha256=digest)
    if ref.folder != folder.name:
        raise CorruptRelease("its manifest is another release's, or was changed")
    return Installed(ref, folder, release)


def _same_model(one: Installed, other: Installed) -> bool:
    return (one.ref.kind, one.release.name) == (other.ref.kind, other.release.name)


def _names(folder: Path) -> set[str]:
    """What in a folder is called as a release's folder is. Whatever else lies there is nobody's business."""
    try:
        return {name for name in os.listdir(folder) if _FOLDER.fullmatch(name)}  # noqa: PTH208 - names are enough
    except FileNotFoundError:
        return set()


def _abandoned(staging: Path, wanted: set[str]) -> list[Path]:
    """Staged releases but for the wanted ones, and the one that was touched last."""
    found = sorted((staging / name for name in _names(staging)), key=lambda folder: folder.stat().st_mtime_ns)
    return [folder for folder in found[:-1] if folder.name not in wanted]


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it that are not there; the folders in which something was made."""
    missing_ones = [place for place in (folder, *folder.parents) if not place.is_dir()]
    for place in reversed(missing_ones):
        place.mkdir(mode=0o700, exist_ok=True)
    return [place.parent for place in missing_ones]


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Raises StorageFailed for what the system says."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
