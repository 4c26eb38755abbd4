"""What the sync link brought, on the shelf beside what lies in the store's folder.

A release is called by its bundle's name, whatever else has that name: one in the folder is then called `name-version`,
and is hidden if the release has that version too.
An adapter stands beside every bundle of the name that it was made for, and goes before another one of its own name.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from device_agent.releases.records import Installed, Ref
from device_agent.releases.store import Store
from device_agent.shelf import adapters
from device_agent.shelf.records import Entry, Fault, Found, Opened, Opener
from device_agent.shelf.scan import named, read_entry, version_name
from device_agent.shelf.shelf import Shelf
from edgekit import contract
from edgekit.bundle import read_manifest
from edgekit.errors import BundleError, CorruptBundle


def with_synced(found: Found, store: Store) -> Found:
    """What a scan found, and what the store says is to serve; `found` itself if that is nothing.

    A model that cannot be read is a fault, and the one before it serves. Raises StorageFailed.
    """
    unread: dict[Ref, Fault] = {}
    while releases := store.serving():
        both = with_releases(found, releases)
        models = {one.ref.folder: one.ref for one in releases if one.ref.kind == "model"}
        new = {models[fault.name]: fault for fault in both.faults if fault.name in models}
        if new.keys() <= store.doubts:
            more = [fault for ref, fault in unread.items() if ref not in new]
            return dataclasses.replace(both, faults=(*both.faults, *more))
        for ref in new:
            store.doubt(ref)
        unread |= new
    return found


def with_releases(found: Found, releases: Sequence[Installed]) -> Found:
    """What a scan found, and these releases. One that cannot be read is a fault, by the name of its folder."""
    brought, faults = _entries(one for one in releases if one.ref.kind == "model")
    synced = named(brought, faults)
    entries = {entry.id: entry for entry in synced.entries}
    shadowed = {entry.manifest.name for entry in synced.entries}
    for entry in found.entries:
        name = version_name(entry) if entry.manifest.name in shadowed else entry.id
        if name not in synced.aliases:
            entries.setdefault(name, dataclasses.replace(entry, id=name))
    kept = {
        alias: name
        for alias, name in found.aliases.items()
        if alias not in entries and entries[name].manifest.name not in shadowed
    }
    beside = [one.folder for one in releases if one.ref.kind == "adapter"]
    fitted, unfit = adapters.brought([entries[name] for name in sorted(entries)], beside)
    return Found(
        entries=tuple(fitted),
        faults=(*found.faults, *synced.faults, *unfit),
        aliases={**kept, **synced.aliases},
        alone=found.alone and not synced.entries,
        preferred=_preferred(found, synced),
    )


def _entries(models: Iterable[Installed]) -> tuple[list[Entry], list[Fault]]:
    entries, faults = [], []
    for one in models:
        try:
            entry, unfit = adapters.own(read_entry(one.folder))
            if version_name(entry) != one.ref.id:
                raise CorruptBundle(str(one.folder), f"it calls itself {version_name(entry)}")
        except BundleError as error:
            faults.append(Fault(one.ref.folder, str(error)))
        else:
            entries.append(entry)
            faults += unfit
    return entries, faults


def _preferred(found: Found, synced: Found) -> str | None:
    """Who is active if nobody was made so: the one bundle that somebody named, else a release."""
    if found.alone and found.entries[0].manifest.name not in {entry.manifest.name for entry in synced.entries}:
        return found.entries[0].id
    return next((entry.id for entry in synced.entries if entry.manifest.embedding is None), None)


def bases(store: Store, models: Path) -> Callable[[str], Path | None]:
    """Finds the folder of a model by its name: the release that serves, else a bundle in the folder `models`."""

    def find(name: str) -> Path | None:
        for one in store.serving():
            if one.ref.kind == "model" and one.release.name == name:
                return one.folder
        places = [models, *sorted(models.iterdir())] if models.is_dir() else []
        return next((place for place in places if _is_called(place, name)), None)

    return find


def _is_called(folder: Path, name: str) -> bool:
    try:
        return (folder / contract.MANIFEST_FILE).is_file() and read_manifest(folder).name == name
    except (BundleError, OSError):
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Leasing:
    """An `Opener` that notes which releases are open, so that no collection takes one from under a running answer."""

    store: Store
    opening: Opener

    def __call__(self, entry: Entry) -> Opened:
        """Load a bundle. Raises as the opener inside does."""
        ref = next((one.ref for one in self.store.installed() if one.folder == entry.folder), None)
        if ref is None:
            return self.opening(entry)
        give_back = self.store.hold(ref)
        try:
            opened = self.opening(entry)
        except BaseException as problem:
            give_back()
            if isinstance(problem, CorruptBundle):
                self.store.doubt(ref)
            raise

        def sweep() -> None:
            opened.sweep()
            give_back()

        return dataclasses.replace(opened, sweep=sweep)


class ShelfSwitch:
    """Implements the activation's `Switch` (device_agent/activation/records.py) with the shelf of this process.

    Before it is attached it has nobody to move: the shelf is built from what the store says anyway.
    """

    serving = True

    def __init__(self) -> None:
        self._shelf: Shelf | None = None
        self._take_over: Callable[[], None] = lambda: None

    def attach(self, shelf: Shelf, take_over: Callable[[], None]) -> None:
        """From now on `take_over` brings the shelf what the store says."""
        self._shelf, self._take_over = shelf, take_over

    def serve(self) -> None:
        """See `Switch`."""
        self._take_over()

    def faults(self, ref: Ref) -> str | None:
        """See `Switch`."""
        return None if self._shelf is None else self._shelf.problem(ref.folder)

    def spare(self) -> None:
        """Let go of models that nobody uses at the moment."""
        if self._shelf is not None:
            self._shelf.spare()
