"""Our TUF client behind the command line that the public conformance suite drives.

    python tests/conformance/client.py --metadata-dir DIR init ROOT
    python tests/conformance/client.py --metadata-dir DIR --metadata-url URL refresh
    python tests/conformance/client.py --metadata-dir DIR --metadata-url URL --target-name NAME \\
        --target-base-url URL --target-dir DIR download

The protocol is CLIENT-CLI.md of github.com/theupdateframework/tuf-conformance. The suite is on no package index: check
it out, and have the program `faketime`. It gets an environment of its own, since it pins other versions of what we use
too, and one command runs it against our client:

    python -m venv PATH/env && PATH/env/bin/pip install -e PATH
    PATH/env/bin/pytest PATH/tuf_conformance --entrypoint "$(which python) $PWD/tests/conformance/client.py"

The tests beside this file ask the same in our own words, under the suite's names.

What is tested is `TrustedMetadata` (generations, floors, clock and python-tuf) over the agent's transport; only the
product's own two roles are left out. Exit code 0 or 1.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from device_agent.sync.records import Clock
from device_agent.sync.transport.address import Address, parse
from device_agent.sync.transport.http import HttpSource
from device_agent.sync.transport.surroundings import Surroundings
from device_agent.sync.transport.web import Web
from device_agent.sync.trust import generations
from device_agent.sync.trust.metadata import TrustedMetadata
from edgekit.errors import EdgekitError

PREFIX = "metadata/"


class _Quoted(Address):
    """The suite's URL of metadata takes the place of our folder; names of roles come quoted, as python-tuf has them."""

    def file(self, path: str) -> str:
        return f"{self.name}/{path.removeprefix(PREFIX)}"


def _source(url: str, clock: Clock) -> HttpSource:
    address = parse(url)
    fields = {field.name: getattr(address, field.name) for field in dataclasses.fields(address)}
    around = Surroundings(clock=clock, environment={})
    web = Web(_Quoted(**fields), surroundings=around, least_bytes_per_s=1, friends=frozenset({address.host}))
    return HttpSource(web)


def _metadata(folder: Path, clock: Clock) -> TrustedMetadata:
    anchor = (folder / "trusted" / "root.json").read_bytes()
    return TrustedMetadata(folder / "trusted" / "state", anchor, clock=clock, built=0.0, attempts=1)


def _show(folder: Path, metadata: TrustedMetadata) -> None:
    """What is trusted now, under the names that the suite looks for."""
    verified = metadata.verified()
    if verified is None:
        return
    root = generations.latest_root(verified)
    assert root is not None
    (folder / "root.json").write_bytes(root.read_bytes())
    for path in verified.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())


def _init(folder: Path, root: Path) -> None:
    (folder / "trusted").mkdir(parents=True)
    for place in (folder / "trusted" / "root.json", folder / "root.json"):
        place.write_bytes(root.read_bytes())


def _refresh(options: argparse.Namespace, clock: Clock, wanted: Sequence[str] = ()) -> tuple[TargetFile | None, bool]:
    """The target that was wanted, and whether its name is to have its digest before it."""
    folder = Path(options.metadata_dir)
    metadata = _metadata(folder, clock)
    try:
        trusted, found = metadata.refresh(_source(options.metadata_url, clock), wanted=wanted)
    finally:
        _show(folder, metadata)
    return (found[0] if found else None), bool(trusted.root.consistent_snapshot)


def _download(options: argparse.Namespace, clock: Clock) -> None:
    target, prefixed = _refresh(options, clock, [options.target_name])
    if target is None:
        raise SystemExit(1)
    place = Path(options.target_dir) / quote(options.target_name, "")
    if place.is_file() and _is(place.read_bytes(), target):
        return
    folder, slash, name = target.path.rpartition("/")
    digest = f"{next(iter(target.hashes.values()))}." if prefixed else ""
    raw = _source(options.target_base_url, clock).read(quote(f"{folder}{slash}{digest}{name}"), limit=target.length)
    if not _is(raw, target):
        raise SystemExit(1)
    place.write_bytes(raw)


def _is(raw: bytes, target: TargetFile) -> bool:
    try:
        target.verify_length_and_hashes(raw)
    except LengthOrHashMismatchError:
        return False
    return True


def main(arguments: Sequence[str], *, clock: Clock = time.time) -> int:
    """One command; its exit code."""
    parser = argparse.ArgumentParser()
    for option in ("metadata-dir", "metadata-url", "target-name", "target-dir", "target-base-url"):
        parser.add_argument(f"--{option}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    options = parser.parse_args(arguments)
    try:
        if options.command == "init":
            _init(Path(options.metadata_dir), options.root)
        elif options.command == "refresh":
            _refresh(options, clock)
        else:
            _download(options, clock)
    except EdgekitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except SystemExit as left:
        return int(left.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
