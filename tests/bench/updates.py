"""What updates of the demo model cost: bytes of a full download, seconds to publish, to fetch and to check.

    python tests/bench/updates.py [--json] [--all] [--only WORD ...] [--scratch DIR] [--kl] [--model MODEL.gguf]

Every version is a real export (tests/bench/versions.py), published into a scratch repository beside the INT4 bundle
that devices have, and really fetched from that folder by what a device runs, whose bytes are counted; the manifest and
the index of differences count too. Seconds are of this machine: "publish" cuts and packs the content and counts the
differences, "stage" puts the release together, "seal" makes it durable and reads it again.

A second table has the cost of cuts at random bytes and of single flipped bits, the speed of checking a release beside
that of reading its files (pages forgotten before each), and the memory of an update of 2 GiB.

It takes some eight minutes and 6 GB of disk. --only runs the updates whose name contains one of the words, and nothing
else; --all has more of them; --kl adds what quantising cost, in nats, beside the version's own float weights.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from device_agent.releases.records import Installed
from edgekit.release.delta import Delta
from edgekit.release.manifest import HealthFloor, Release, Requires
from export.checkpoints import open_checkpoint
from export.publish.content import add_release
from export.publish.deltas import make_delta
from tests.bench.pulling import Device, checking_speed, memory_bytes
from tests.bench.versions import MORE, ROWS, Bench, Row, Version, demo_model, scratch_folder

ROOT = Path(__file__).parents[2]
TEXT_BYTES = 12_000
CUTS, FLIPS = 40, 12
BIG_MIB = 2048
HEAD = "| update | full | fetched | of full | publish | stage | seal |{kl}\n|---|---|---|---|---|---|---|{line}"


@dataclass(frozen=True)
class Cost:
    """One row: bytes and seconds. `full_bytes` is what a device without anything fetches (of an adapter: its base)."""

    update: str
    full_bytes: int
    fetched_bytes: int
    publish_s: float
    stage_s: float
    seal_s: float
    most: float | None = None
    kl: float | None = None

    @property
    def share(self) -> float:
        """Of a full download."""
        return self.fetched_bytes / self.full_bytes

    def line(self) -> str:
        """As a row of the table."""
        bound = f" (at most {self.most:.0%})" if self.most is not None else ""
        cells = [self.update, f"{self.full_bytes / 1e6:.1f} MB", f"{self.fetched_bytes / 1e6:.2f} MB"]
        cells += [
            f"{self.share:.2%}{bound}",
            *(f"{each:.1f} s" for each in (self.publish_s, self.stage_s, self.seal_s)),
        ]
        return f"| {' | '.join(cells)} |" + (f" {self.kl:.3f} |" if self.kl is not None else "")


@dataclass(frozen=True)
class Fact:
    """A row of the second table; `value` and `most` in `unit`."""

    what: str
    value: float
    unit: str
    most: float | None = None

    def line(self) -> str:
        """As a row of the table."""
        return f"| {self.what} | {self.value:,.2f} {self.unit} | {'' if self.most is None else f'{self.most:g}'} |"


@dataclass(frozen=True)
class Released:
    """A version in the repository, and how long that took."""

    release: Release
    delta: Delta | None
    publish_s: float


class Shop:
    """A repository and a device that has the base."""

    def __init__(self, scratch: Path, base: Path) -> None:
        self.repository = scratch / "repository"
        self.base = self.release(base, None)
        self.device = Device(scratch / "device", self.repository)
        self.fresh, self.installed = self.device.pull(self.base.release, None, ())

    def release(self, folder: Path, base: Release | None) -> Released:
        """Publish a folder, and differences from the base."""
        begun = time.perf_counter()
        earlier = () if base is None else (base,)
        release = add_release(
            folder,
            self.repository,
            sequence=len(earlier) + 1,
            earlier=earlier,
            health=HealthFloor(),
            requires=Requires(),
        )
        delta = None if base is None else make_delta(base, None, release, folder, self.repository)
        used = delta if delta is not None and delta.differences else None
        return Released(release, used, time.perf_counter() - begun)

    def first(self) -> Cost:
        """What a new device fetches."""
        fresh = self.fresh
        return Cost("fresh install", fresh.bytes, fresh.bytes, self.base.publish_s, fresh.stage_s, fresh.seal_s)

    def cost(self, row: Row, version: Version, kl: float | None) -> tuple[Cost, Released]:
        """Publish a version and fetch it."""
        new = self.release(version.folder, self.base.release)
        pulled, installed = self.device.pull(new.release, new.delta, (self.installed,))
        shutil.rmtree(installed.folder)
        full = self.fresh.bytes if new.release.kind == "adapter" else _full_bytes(new.release)
        cost = Cost(row.name, full, pulled.bytes, new.publish_s, pulled.stage_s, pulled.seal_s, row.most, kl)
        return cost, new


def _full_bytes(release: Release) -> int:
    stored = {chunk.sha256: chunk.stored for _, _, chunk in release.chunks()}
    return sum(stored.values()) + len(release.to_bytes())


def facts(shop: Shop, update: Released, scratch: Path) -> Iterator[Fact]:
    """The rows of the second table."""
    nothing: tuple[Installed, ...] = ()
    for what, new, have in (("install", shop.base, nothing), ("update by differences", update, (shop.installed,))):
        wasted = shop.device.cuts(new.release, new.delta, have, CUTS)
        yield Fact(f"fetched twice after a cut of an {what}: most of {len(wasted)}", max(wasted) / 2**20, "MiB", 1)
        yield Fact(f"the same, mean of {len(wasted)}", sum(wasted) / len(wasted) / 2**20, "MiB")
    came = shop.device.rot(shop.installed, FLIPS)
    yield Fact(f"fetched for one flipped bit: most of {len(came)}", max(came) / 2**20, "MiB", 1)
    speed = checking_speed(shop.installed)
    yield Fact("files read from the disk", speed.reading, "MB/s")
    yield Fact("files read and checked", speed.checking, "MB/s")
    yield Fact("time to check, of the time to read", speed.reading / speed.checking, "times")
    shutil.rmtree(scratch / "device")
    yield Fact(
        f"memory of an update of {BIG_MIB} MiB, above the base", memory_bytes(BIG_MIB, scratch) / 2**20, "MiB", 64
    )


def measure_kl(version: Version, text: Path) -> float | None:
    """What quantising cost, over ordinary text."""
    if version.source is None:
        return None
    command = [sys.executable, "-m", "edgekit", "eval", str(version.folder), "--reference", str(version.source)]
    result = subprocess.run(
        [*command, "--text", str(text), "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return float(json.loads(result.stdout)["kl"])


def run(asked: argparse.Namespace, rows: Sequence[Row]) -> Iterator[Cost | Fact]:
    """Every row, as soon as it is known."""
    with scratch_folder(asked.scratch) as (kept, scratch), open_checkpoint(asked.model or demo_model()) as checkpoint:
        text = scratch / "text.txt"
        text.write_bytes((ROOT / "README.md").read_bytes()[:TEXT_BYTES])
        bench = Bench(kept, checkpoint)
        shop = Shop(scratch, bench.base())
        shops = {bench.base(): shop}
        if not asked.only:
            yield shop.first()
        update: Released | None = None
        for row in rows:
            base, version = row.make(bench)
            if base not in shops:
                shops[base] = Shop(Path(tempfile.mkdtemp(dir=scratch)), base)
            cost, made = shops[base].cost(row, version, measure_kl(version, text) if asked.kl else None)
            update = update or made
            yield cost
        if update is not None and not asked.only:
            yield from facts(shop, update, scratch)


def main() -> None:
    """Print the tables, or one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint; the demo model if none is given")
    parser.add_argument("--only", nargs="+", default=[], help="updates whose name contains one of these")
    parser.add_argument("--all", action="store_true", help="more updates")
    parser.add_argument("--scratch", type=Path, help="folder that keeps bundles between runs")
    parser.add_argument("--kl", action="store_true", help="measure quality")
    parser.add_argument("--json", action="store_true", help="one object instead of tables")
    asked = parser.parse_args()
    rows = [
        row for row in (*ROWS, *(MORE if asked.all else ())) if not asked.only or any(w in row.name for w in asked.only)
    ]
    found: list[Cost | Fact] = []
    if not asked.json:
        print(HEAD.format(kl=" KL |" * asked.kl, line="---|" * asked.kl), flush=True)
    for one in run(asked, rows):
        if not asked.json:
            if isinstance(one, Fact) and not any(isinstance(each, Fact) for each in found):
                print("\n| | measured | at most |\n|---|---|---|")
            print(one.line(), flush=True)
        found.append(one)
    if asked.json:
        print(json.dumps([asdict(one) for one in found], indent=1))


if __name__ == "__main__":
    main()
