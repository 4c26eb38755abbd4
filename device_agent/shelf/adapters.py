"""Which LoRA adapters stand beside which bundle: in `adapters` below the bundle, or below the store for all of it.

One of the store's belongs to every bundle of the name that it was made for and whose weights it fits (edgekit.adapter).
One in a bundle's own folder goes before one of the store's with the same name.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from device_agent.shelf.records import Adapter, Entry, Fault
from edgekit import contract
from edgekit.adapter import AdapterFolder, check, open_adapter
from edgekit.bundle import Bundle
from edgekit.errors import BundleError
from edgekit.files import sha256_of

MOST_ADAPTERS = 200
"""Of one folder."""


def own(entry: Entry) -> tuple[Entry, list[Fault]]:
    """The entry with the adapters in its own folder, and those of them that cannot be used."""
    found, faults = _read(
        entry.folder / contract.ADAPTERS_FOLDER, named=f"{entry.folder.name}/{contract.ADAPTERS_FOLDER}"
    )
    for adapter in found:
        try:
            entry = _with(entry, adapter)
        except (BundleError, OSError) as error:
            faults.append(_fault(entry.folder.name, adapter, str(error)))
    return entry, faults


def shared(entries: Iterable[Entry], store: Path) -> tuple[list[Entry], list[Fault]]:
    """The entries with those of the store's adapters that fit them, and the adapters that fit none."""
    adapters, faults = _read(store / contract.ADAPTERS_FOLDER, named=contract.ADAPTERS_FOLDER)
    found = list(entries)
    for adapter in adapters:
        if problem := _fit(found, adapter, first=False):
            faults.append(_fault("", adapter, problem))
    return found, faults


def brought(entries: Iterable[Entry], folders: Iterable[Path]) -> tuple[list[Entry], list[Fault]]:
    """The entries with those of the sync link's adapters that fit them, before others of the same name."""
    found, faults = list(entries), []
    for folder in folders:
        try:
            problem = _fit(found, open_adapter(folder), first=True)
        except (BundleError, OSError) as error:
            problem = str(error)
        if problem:
            faults.append(Fault(folder.name, problem))
    return found, faults


def _fit(entries: list[Entry], adapter: AdapterFolder, *, first: bool) -> str:
    """Give every entry of its base's name the adapter; why it fits none, "" if it fits one."""
    base, problem, fits = adapter.manifest.base.name, "", 0
    for at, entry in enumerate(entries):
        if entry.manifest.name != base:
            continue
        try:
            entries[at] = _with(entry, adapter, first=first)
            fits += 1
        except (BundleError, OSError) as error:
            problem = str(error)
    return "" if fits else problem or f"its base {base} is not there"


def _with(entry: Entry, adapter: AdapterFolder, *, first: bool = False) -> Entry:
    """Raises BundleError or OSError for an adapter that does not fit. `first`: it takes the place of a namesake."""
    check(adapter, Bundle(entry.folder, entry.manifest))
    named = {adapter.manifest.name: Adapter(adapter.folder, sha256_of(adapter.folder / contract.ADAPTER_MANIFEST_FILE))}
    return dataclasses.replace(entry, adapters={**entry.adapters, **named} if first else {**named, **entry.adapters})


def _read(folder: Path, *, named: str) -> tuple[list[AdapterFolder], list[Fault]]:
    """Adapters in the folders below this one, and folders that say they are one and are not."""
    faults: list[Fault] = []
    found: list[AdapterFolder] = []
    places = sorted(folder.iterdir()) if folder.is_dir() else []
    places = [each for each in places if not each.name.startswith(".") and _is_adapter(each)]
    if len(places) > MOST_ADAPTERS:
        faults.append(Fault(named, f"only the first {MOST_ADAPTERS:,} adapters of a folder are read"))
    for place in places[:MOST_ADAPTERS]:
        try:
            found.append(open_adapter(place))
        except (BundleError, OSError) as error:
            faults.append(Fault(f"{named}/{place.name}", str(error)))
    return found, faults


def _is_adapter(folder: Path) -> bool:
    return (folder / contract.ADAPTER_MANIFEST_FILE).is_file()


def _fault(bundle: str, adapter: AdapterFolder, problem: str) -> Fault:
    above = f"{bundle}/{contract.ADAPTERS_FOLDER}" if bundle else contract.ADAPTERS_FOLDER
    return Fault(f"{above}/{adapter.folder.name}", problem)
