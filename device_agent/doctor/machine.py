"""The machine and the agent's folder: facts first, findings from them. Only `probe` looks at anything."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from device_agent.doctor.records import Finding
from edgekit import contract, hardware
from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError

NEEDED_ONNXRUNTIME = (1, 31)
NEEDED_PYTHON = (3, 11)
USUAL_CONTEXT = 2048
"""Tokens of a usual conversation: what memory is reckoned with."""
SPARE_DISK_BYTES = 1 << 30
ADMIN_TOKEN = "admin-token"  # noqa: S105 - the file's name

_X86 = ("x86_64", "AMD64")
_ARM = ("aarch64", "arm64")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """A bundle that is to run here; `problem` is why it cannot be opened."""

    name: str
    needed_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What the rules look at. `token_mode` is the admin token's file mode, None without such a file.

    `writable` is None where the folder does not exist yet. `built` is when this edgekit was installed, Unix seconds.
    """

    python: tuple[int, int]
    onnxruntime: str
    architecture: str
    instructions: frozenset[str]
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    home: Path
    writable: bool | None
    token_mode: int | None
    now: float
    built: float
    bundles: tuple[BundleFacts, ...] = ()


def findings(facts: MachineFacts) -> list[Finding]:
    """Every rule, in the order that a person reads them."""
    return [finding for rule in RULES for finding in rule(facts)]


def _versions(facts: MachineFacts) -> Iterator[Finding]:
    said = ".".join(map(str, facts.python))
    if facts.python < NEEDED_PYTHON:
        yield Finding("python", "red", f"Python {said}", "Install Python 3.11 or newer.")
    else:
        yield Finding("python", "green", f"Python {said}")
    numbers = tuple(int(number) for number in re.findall(r"\d+", facts.onnxruntime)[:2])
    if not numbers:
        yield Finding("onnxruntime", "red", "not installed", "pip install onnxruntime")
    elif numbers < NEEDED_ONNXRUNTIME:
        needed = ".".join(map(str, NEEDED_ONNXRUNTIME))
        yield Finding(
            "onnxruntime", "red", f"{facts.onnxruntime}, and {needed} is needed", "pip install -U onnxruntime"
        )
    else:
        yield Finding("onnxruntime", "green", facts.onnxruntime)


def _instructions(facts: MachineFacts) -> Iterator[Finding]:
    """Integer dot products are what prompts are read with; without AVX2 nothing here is fast."""
    check, have = "instruction sets", facts.instructions
    if facts.architecture in _X86:
        if "avx2" not in have:
            yield Finding(check, "red", "no AVX2", "This processor is too old to run a language model usefully.")
        elif not have & {"avx512_vnni", "avx_vnni"}:
            yield Finding(check, "green", "AVX2; with VNNI, prompts would be read faster")
        else:
            yield Finding(check, "green", "AVX2 and VNNI")
    elif facts.architecture in _ARM:
        if have and "asimddp" not in have:
            yield Finding(check, "green", "NEON; with dot products (ARMv8.2), prompts would be read faster")
        else:
            yield Finding(check, "green", "dot product" if have else "not told by this system")
    else:
        yield Finding(check, "amber", facts.architecture, "Only x86-64 and 64-bit ARM are tested.")


def _memory(facts: MachineFacts) -> Iterator[Finding]:
    total, free = facts.memory_total_bytes, facts.memory_available_bytes
    if not facts.bundles:
        yield Finding("memory", "green", f"{_gb(free)} of {_gb(total)} available")
    for bundle in facts.bundles:
        check = f"bundle {bundle.name}"
        needs = f"needs about {_gb(bundle.needed_bytes)} at {USUAL_CONTEXT:,} tokens, {_gb(free)} available"
        if bundle.problem:
            yield Finding(check, "red", bundle.problem, "`edgekit verify` shows every problem of a bundle.")
        elif bundle.needed_bytes > total:
            yield Finding(check, "red", needs, "Export it in INT4, or choose a smaller model.")
        elif bundle.needed_bytes > free:
            yield Finding(check, "amber", needs, "Close other programs, or choose a smaller model.")
        else:
            yield Finding(check, "green", needs)


def _clock(facts: MachineFacts) -> Iterator[Finding]:
    """Signed updates have dates, and boards without a battery wake up in 1970."""
    now = datetime.datetime.fromtimestamp(facts.now, datetime.UTC)
    said = f"{now:%Y-%m-%d %H:%M} UTC"
    if facts.now < facts.built:
        yield Finding("clock", "red", f"{said}, before edgekit was installed", "Set the clock, or switch on NTP.")
    else:
        yield Finding("clock", "green", said)


def _folder(facts: MachineFacts) -> Iterator[Finding]:
    if facts.writable is None:
        yield Finding("folder", "green", f"{facts.home} will be made at the first start")
    elif not facts.writable:
        yield Finding("folder", "red", f"{facts.home} cannot be written", "Change its owner, or set EDGEKIT_HOME.")
    else:
        yield Finding("folder", "green", str(facts.home))
    free = facts.disk_free_bytes
    if free < SPARE_DISK_BYTES:
        yield Finding("disk", "amber", f"{_gb(free)} free", "Unpacked weights and updates need more: free some space.")
    else:
        yield Finding("disk", "green", f"{_gb(free)} free")
    if facts.token_mode is not None and facts.token_mode & 0o077:
        yield Finding(
            "admin token",
            "red",
            f"others may read it (mode {facts.token_mode:03o})",
            f"chmod 600 {facts.home / ADMIN_TOKEN}, and delete it first if others had the time to read it.",
        )
    elif facts.token_mode is not None:
        yield Finding("admin token", "green", "only its owner may read it")


RULES: tuple[Callable[[MachineFacts], Iterator[Finding]], ...] = (_versions, _instructions, _memory, _clock, _folder)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


# --- looking --------------------------------------------------------------------------------


def probe(home: Path, folders: Sequence[Path], *, now: float) -> MachineFacts:
    """Facts of this machine, for bundles in `folders`."""
    memory = psutil.virtual_memory()
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    return MachineFacts(
        python=(int(platform.python_version_tuple()[0]), int(platform.python_version_tuple()[1])),
        onnxruntime=_installed("onnxruntime"),
        architecture=platform.machine(),
        instructions=hardware.instruction_sets(),
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_free_bytes=shutil.disk_usage(existing).free,
        home=home,
        writable=_writable(home),
        token_mode=_mode(home / ADMIN_TOKEN),
        now=now,
        built=Path(__file__).stat().st_mtime,
        bundles=tuple(_bundle(folder) for folder in folders),
    )


def bundles_in(folder: Path) -> list[Path]:
    """The bundle that `folder` is, or those that it holds."""
    if (folder / contract.MANIFEST_FILE).is_file() or not folder.is_dir():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{contract.MANIFEST_FILE}"))


def _bundle(folder: Path) -> BundleFacts:
    try:
        manifest = open_bundle(folder).manifest
    except EdgekitError as error:
        return BundleFacts(name=folder.name, problem=str(error))
    needs = manifest.requires
    return BundleFacts(name=manifest.name, needed_bytes=needs.weight_bytes + USUAL_CONTEXT * needs.kv_bytes_per_token)


def _installed(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def _writable(home: Path) -> bool | None:
    if not home.exists():
        return None
    try:
        with tempfile.TemporaryFile(dir=home):
            return True
    except OSError:
        return False


def _mode(path: Path) -> int | None:
    if os.name == "nt":  # its files have no such modes
        return None
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
