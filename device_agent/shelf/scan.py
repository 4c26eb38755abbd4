"""From a folder to entries: every bundle in it, and what is wrong with those that cannot be used.

The shelf's folder is a bundle itself, or has bundles in folders below it. A folder without bundle.json is none, and
nobody's mistake; nor is one whose name begins with a dot, where bundles are made before they take their name.

Names: a bundle is called by its manifest's name. Of several with the same name the newest version has it, and each is
also called `name-version`, unless another bundle's name is that.
"""

import dataclasses
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from device_agent.shelf import adapters
from device_agent.shelf.names import version_order
from device_agent.shelf.records import Entry, Fault, Found
from edgekit import contract
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import BundleError, CorruptBundle, NotABundle
from edgekit.files import safe_join, sha256_of

log = logging.getLogger(__name__)

MOST_FOLDERS = 1_000
MOST_CARD_BYTES = 64 << 10


def scan(folder: Path) -> Found:
    """What is on the shelf at `folder`. Raises BundleError if it is one bundle that is broken, or no folder."""
    if not folder.is_dir():
        raise NotABundle(str(folder), "there is no such folder")
    if (folder / contract.MANIFEST_FILE).is_file():
        entry, faults = adapters.own(read_entry(folder))
        _tell(faults, folder.parent)
        return Found(entries=(entry,), faults=tuple(faults), aliases={version_name(entry): entry.id}, alone=True)
    entries: list[Entry] = []
    faults = []
    for name in _folders(folder, faults):
        try:
            entry, unfit = adapters.own(read_entry(folder / name))
        except BundleError as error:
            faults.append(Fault(name, str(error)))
        else:
            entries.append(entry)
            faults += unfit
    entries, unfit = adapters.shared(entries, folder)
    found = named(entries, [*faults, *unfit])
    _tell(found.faults, folder)
    return found


def read_entry(folder: Path) -> Entry:
    """One bundle, by its manifest's name. Raises BundleError."""
    path = folder / contract.MANIFEST_FILE
    try:
        before = sha256_of(path)
        bundle = open_bundle(folder)
        entry = Entry(
            id=bundle.manifest.name,
            folder=folder,
            manifest=bundle.manifest,
            sha256=before,
            created=int(path.stat().st_mtime),
            text=_card(bundle),
        )
        changed = sha256_of(path) != before
    except OSError as error:
        raise CorruptBundle(str(folder), f"it cannot be read: {error.strerror or error}") from error
    if changed:
        raise CorruptBundle(str(folder), "it was replaced while it was read")
    return entry


def named(entries: Iterable[Entry], faults: Iterable[Fault] = ()) -> Found:
    """Give each entry its name; see the module's text."""
    chosen: dict[str, Entry] = {}
    rest: list[Entry] = []
    known: dict[tuple[str, str], Entry] = {}
    problems = list(faults)
    for entry in sorted(entries, key=lambda entry: version_order(entry.manifest.version), reverse=True):
        twin = known.setdefault((entry.manifest.name, entry.manifest.version), entry)
        if twin is not entry:
            said = f"{twin.folder.name} has the same name and version, {version_name(entry)}"
            problems.append(Fault(entry.folder.name, said))
        elif chosen.setdefault(entry.manifest.name, entry) is not entry:
            rest.append(entry)
    found = dict(chosen)
    for entry in rest:
        name = version_name(entry)
        if found.setdefault(name, entry) is not entry:
            problems.append(Fault(entry.folder.name, f"another bundle is called {name}"))
    aliases = {version_name(entry): name for name, entry in chosen.items() if version_name(entry) not in found}
    return Found(
        entries=tuple(dataclasses.replace(entry, id=name) for name, entry in sorted(found.items())),
        faults=tuple(problems),
        aliases=aliases,
    )


def _tell(faults: Iterable[Fault], folder: Path) -> None:
    for fault in faults:
        log.warning("%s in %s is left out: %s", fault.name, folder, fault.problem)


def version_name(entry: Entry) -> str:
    """What this very version is called."""
    return f"{entry.manifest.name}-{entry.manifest.version}"


def _folders(shelf: Path, faults: list[Fault]) -> list[str]:
    """Names of the folders that have a bundle.json, in order."""
    with os.scandir(shelf) as found:
        names = [entry.name for entry in found if not entry.name.startswith(".") and entry.is_dir()]
    names = sorted(name for name in names if (shelf / name / contract.MANIFEST_FILE).is_file())
    if len(names) > MOST_FOLDERS:
        faults.append(Fault(names[MOST_FOLDERS], f"only the first {MOST_FOLDERS:,} bundles of a folder are read"))
    return names[:MOST_FOLDERS]


def _card(bundle: Bundle) -> str:
    """MODEL_CARD.md as far as the limit, "" if there is none."""
    if not bundle.has(contract.CARD_FILE):
        return ""
    with safe_join(bundle.folder, contract.CARD_FILE).open("rb") as stream:
        return stream.read(MOST_CARD_BYTES).decode("utf-8", errors="replace")
