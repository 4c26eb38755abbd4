"""TUF's client workflow in generations: a refresh happens in a copy, which counts once it is whole on disk.

    read record -> newest sound generation -> copy -> python-tuf refreshes the copy -> versions against floors
                -> fsync -> record (floors, clock and the new generation's name at once) -> older ones removed

A failure leaves the record as it was, but for what was verified before it (see `record.Generation`).
"""

import datetime
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tuf.api.exceptions import DownloadError, ExpiredMetadataError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from device_agent.sync.records import Clock, Source
from device_agent.sync.trust import generations, wire
from device_agent.sync.trust.record import (
    FORMAT,
    Generation,
    Record,
    Standing,
    check_versions,
    clock_to_keep,
    effective_time,
    generations_after,
    later,
    parse,
    raised,
    revoked,
)
from device_agent.sync.trust.trusted import NOT_METADATA, Trusted, newest_root, read, standing_of
from edgekit.errors import StorageFailed, TrustLost, Unreachable, Untrusted
from edgekit.release.names import RELEASES
from edgekit.slots import Slots

MAX_ROTATIONS = 64
"""Versions of root that one refresh may climb."""

ATTEMPTS = 3
"""How many mirrors may lie before a refresh gives up."""

_LAST_SECOND = 253_402_300_799

log = logging.getLogger(__name__)


class _Updater(Updater):
    """Unmodified, but for one file that a `bootstrap=` makes needless: a symbolic link, which FAT does not have."""

    def _update_root_symlink(self) -> None:
        pass

    def count_time_from(self, now: float) -> None:
        """python-tuf asks the machine's clock for the time, which a device cannot rely on."""
        self._trusted_set.reference_time = datetime.datetime.fromtimestamp(min(max(now, 0), _LAST_SECOND), datetime.UTC)


class TrustedMetadata:
    """Metadata of one repository, kept in `folder`. `delegated` are roles of which `targets` must say something.

    `anchor` is the root that was provisioned. Of so many mirrors as `attempts` the last may be the first that is right.
    """

    def __init__(
        self,
        folder: Path,
        anchor: bytes,
        *,
        clock: Clock,
        built: float,
        delegated: Sequence[str] = (),
        attempts: int = ATTEMPTS,
    ) -> None:
        self._folder = folder
        self._anchor = anchor
        self._clock = clock
        self._built = built
        self._delegated = tuple(delegated)
        self._attempts = attempts
        self._slots = Slots(folder, "record")
        self._notes: list[str] = []
        self._loaded: Trusted | None = None

    # -- what is remembered

    def record(self) -> Record | None:
        """What is remembered; None before the first time. Raises TrustLost."""
        found = self._slots.read()
        if found.payload is None:
            if found.damaged == len(self._slots.paths) or generations.numbers(self._folder):
                raise TrustLost(f"{self._slots.paths[0].parent} has no sound record of the versions that were accepted")
            return None
        if self._is_half():
            self._note("a copy of the record of accepted versions was damaged; the other one counts")
        record = parse(found.payload)
        if record.anchor != self._anchor_digest:
            raise TrustLost("it trusted another root before")
        return record

    def reset(self) -> None:
        """Begin anew, with nothing but the root that was provisioned. For an operator, never for a network."""
        self._write(self._empty())
        self._loaded = None
        generations.keep_only(self._folder, ())

    def notes(self) -> tuple[str, ...]:
        """What was damaged and made good since the last call, for people."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def now(self, record: Record | None) -> float:
        """Effective time, Unix seconds."""
        return effective_time(record or self._empty(), machine=self._clock(), built=self._built)

    @property
    def machine_time(self) -> float:
        """What this machine believes."""
        return self._clock()

    def last(self) -> Trusted | None:
        """The newest generation that is whole and sound, without any network. Writes nothing. Raises TrustLost."""
        record = self.record()
        return None if record is None else self._newest_whole(record)

    def verified(self) -> Path | None:
        """The folder with all that was verified so far, be it whole or not; None if nothing was. Raises TrustLost."""
        record = self.record()
        newest = None if record is None else self._newest(record)
        return None if newest is None else generations.folder_of(self._folder, newest.number)

    # -- refreshing

    def refresh(
        self, source: Source, *, wanted: Sequence[str] = (), stale: bool = False
    ) -> tuple[Trusted, tuple[TargetFile | None, ...]]:
        """Fetch what is new; the targets that were `wanted`, None for those that nobody signed.

        With `stale`, metadata that is out of date is accepted, if everything else is right: whoever makes a view of it
        says so. Raises Untrusted, TrustLost, Unreachable, StorageFailed.
        """
        record = self.record()
        try:
            generations.make_home(self._folder)
            if record is None:
                record = self._empty()
                self._write(record)
            for attempt in range(self._attempts):
                try:
                    return self._refresh_once(record, source, wanted, stale=stale)
                except Untrusted:
                    source.blame()
                    if attempt == self._attempts - 1:
                        raise
                    record = self.record() or record
        except OSError as error:
            raise StorageFailed(f"{self._folder}: {error.strerror or error}") from error
        raise AssertionError("a refresh ends in the loop")

    def _refresh_once(
        self, record: Record, source: Source, wanted: Sequence[str], *, stale: bool
    ) -> tuple[Trusted, tuple[TargetFile | None, ...]]:
        base = self._newest(record)
        number = max((*generations.numbers(self._folder), 0)) + 1
        work = generations.folder_of(self._folder, number)
        try:
            generations.copy(None if base is None else generations.folder_of(self._folder, base.number), work)
            found = self._pull(work, source, wanted, record, base=base, stale=stale)
            trusted = read(work, self._delegated)
            self._keep(record, trusted, number, work)
        finally:
            kept = self._slots.read().payload
            generations.keep_only(
                self._folder, [] if kept is None else [generation.number for generation in parse(kept).generations]
            )
        return self._newest_whole(self.record() or record) or trusted, found

    def _pull(
        self,
        work: Path,
        source: Source,
        wanted: Sequence[str],
        record: Record,
        *,
        base: Generation | None,
        stale: bool,
    ) -> tuple[TargetFile | None, ...]:
        """Let python-tuf refresh the copy. What it verified before it failed is kept."""
        try:
            try:
                return self._update(work, source, wanted, now=self.now(record))
            except ExpiredMetadataError:
                if not stale:
                    raise
                return self._update(work, source, wanted, now=0.0)
        except DownloadError as error:
            self._keep_progress(record, work, base)
            raise Unreachable(f"{source.name}: {error}"[:500]) from error
        except NOT_METADATA as error:
            self._keep_progress(record, work, base)
            why = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
            raise Untrusted(f"{source.name}: {why}"[:500]) from error
        except (Untrusted, Unreachable):
            self._keep_progress(record, work, base)
            raise

    def _update(
        self, work: Path, source: Source, wanted: Sequence[str], *, now: float
    ) -> tuple[TargetFile | None, ...]:
        wire.check(self._anchor, name="the provisioned root")
        updater = _Updater(
            str(work),
            "metadata/",
            fetcher=wire.SourceFetcher(source),
            config=UpdaterConfig(
                max_root_rotations=generations.roots_count(work) + MAX_ROTATIONS,
                root_max_length=wire.MAX_ROOT_BYTES,
                timestamp_max_length=wire.MAX_TIMESTAMP_BYTES,
                snapshot_max_length=wire.MAX_METADATA_BYTES,
                targets_max_length=wire.MAX_METADATA_BYTES,
            ),
            bootstrap=self._anchor,
        )
        updater.count_time_from(now)
        updater.refresh()
        return tuple(updater.get_targetinfo(path) for path in wanted)

    # -- keeping

    def _keep(self, record: Record, trusted: Trusted, number: int, work: Path) -> None:
        """Accept a refreshed generation: floors first looked at, then everything durable, then the record."""
        roles = trusted.standings()
        check_versions(record.roles, roles)
        forget_time = revoked(record.roles.get("timestamp"), roles["timestamp"])
        forget_floors = revoked(record.roles.get(RELEASES), roles.get(RELEASES))
        issued = max(trusted.issued, 0 if forget_time else record.issued)
        current = msgspec.structs.replace(record, issued=issued)
        machine = self._clock()
        fresh = trusted.expires > effective_time(current, machine=machine, built=self._built)
        accepted = msgspec.structs.replace(
            current,
            roles=later(record.roles, roles),
            floors=raised({} if forget_floors else record.floors, trusted.floors()),
            clock=clock_to_keep(current, machine=machine, fresh=fresh),
        )
        self._commit(accepted, work, number, whole=True)

    def _keep_progress(self, record: Record, work: Path, base: Generation | None) -> None:
        """Keep what was verified before a failure, if that is anything new and not less than before."""
        digest = generations.digest(work)
        if generations.latest_root(work) is None or (base is not None and digest == base.digest):
            return
        root = newest_root(work)
        roles = {"root": Standing(tuple(sorted(root.roles["root"].keyids)), root.version)}
        timestamp = standing_of(work, "timestamp", root)
        if timestamp is not None:
            roles["timestamp"] = timestamp
        try:
            check_versions(record.roles, roles)
        except Untrusted:
            return
        number = int(work.name.rpartition("-")[2])
        # Only root's standing is kept: it is by the keys that were in force when the others were accepted that they
        # are judged the next time.
        self._commit(
            msgspec.structs.replace(record, roles=later(record.roles, {"root": roles["root"]})),
            work,
            number,
            whole=False,
        )

    def _commit(self, record: Record, work: Path, number: int, *, whole: bool) -> None:
        digest = generations.digest(work)
        if digest is None:
            raise StorageFailed(f"{work} cannot be read back")
        sound = tuple(generation for generation in record.generations if self._is_sound(generation))
        if sound and (sound[0].digest, sound[0].whole) == (digest, whole):
            kept = sound
        else:
            generations.make_durable(work)
            kept = generations_after(sound, Generation(number, digest, whole))
        accepted = msgspec.structs.replace(record, generations=kept)
        if self._is_half() or self._slots.read().payload != accepted.to_bytes():
            self._write(accepted)

    def _write(self, record: Record) -> None:
        """Both copies, so that damage to either one alone lowers no floor."""
        generations.make_home(self._folder)
        raw = record.to_bytes()
        self._slots.write(raw)
        self._slots.write(raw)

    def _is_half(self) -> bool:
        return self._slots.read().damaged > 0 or not all(path.exists() for path in self._slots.paths)

    # -- reading

    def _newest(self, record: Record) -> Generation | None:
        """The generation that a refresh goes on from."""
        return next((generation for generation in record.generations if self._is_sound(generation)), None)

    def _newest_whole(self, record: Record) -> Trusted | None:
        fallback = False
        for generation in record.generations:
            if not generation.whole:
                continue
            loaded = self._loaded
            if loaded is not None and loaded.generation == generation:
                return loaded
            if self._is_sound(generation):
                folder = generations.folder_of(self._folder, generation.number)
                self._loaded = read(folder, self._delegated, generation=generation, fallback=fallback)
                return self._loaded
            fallback = True
        return None

    def _is_sound(self, generation: Generation) -> bool:
        folder = generations.folder_of(self._folder, generation.number)
        sound = generations.digest(folder) == generation.digest
        if not sound:
            self._note(f"{folder.name} is damaged, and was put aside")
        return sound

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)
            log.warning("%s: %s", self._folder, text)

    def _empty(self) -> Record:
        return Record(format=FORMAT, anchor=self._anchor_digest)

    @property
    def _anchor_digest(self) -> str:
        return hashlib.sha256(self._anchor).hexdigest()
