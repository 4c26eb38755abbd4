"""A wheel with too much, too little or something else in it is noticed."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import wheel_contents

INFO = "edgekit-1.dist-info"
METADATA = "Metadata-Version: 2.4\nLicense-Expression: Apache-2.0\nRequires-Python: >=3.11\nRequires-Dist: numpy>=2.0\n"
EXTRA = 'Requires-Dist: torch==2.13.0; extra == "reference"\n'
ENTRIES = "[console_scripts]\nedgekit = edgekit.cli:main\n\n[edgekit.verbs]\nserve = device_agent.cli:serve_command\n"
Files = dict[str, str]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of the product in small."""
    for name in ("edgekit/cli.py", "export/cli.py", "device_agent/cli.py", "device_agent/http/web/app.js", "LICENSE"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "edgekit" / "__pycache__").mkdir()
    (tmp_path / "edgekit" / "__pycache__" / "cli.pyc").write_bytes(b"x")
    return tmp_path


def good(tree: Path) -> Files:
    names = ("edgekit/cli.py", "export/cli.py", "device_agent/cli.py", "device_agent/http/web/app.js")
    return {
        **{name: (tree / name).read_text(encoding="utf-8") for name in names},
        f"{INFO}/METADATA": METADATA + EXTRA,
        f"{INFO}/entry_points.txt": ENTRIES,
        f"{INFO}/licenses/LICENSE": "LICENSE",
    }


def problems(tree: Path, files: Files) -> list[str]:
    path = tree / "test.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    with zipfile.ZipFile(path) as wheel:
        return wheel_contents.problems(wheel, tree)


def test_a_wheel_of_the_whole_tree_has_no_problems(tree: Path) -> None:
    assert problems(tree, good(tree)) == []


def without(name: str) -> Callable[[Files], None]:
    return lambda files: files.__delitem__(name)


def having(name: str, text: str) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(name, text)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(without("device_agent/http/web/app.js"), "missing: device_agent/http/web/app.js", id="no page"),
        pytest.param(having("export/cli.py", "old"), "differs from the tree: export/cli.py", id="stale file"),
        pytest.param(having("tests/x.py", ""), "does not belong in it: tests/x.py", id="tests inside"),
        pytest.param(without(f"{INFO}/licenses/LICENSE"), "the licence's text is missing", id="no licence"),
        pytest.param(
            having(f"{INFO}/entry_points.txt", ENTRIES.split("\n\n", maxsplit=1)[0]),
            "no entry points in edgekit.verbs",
            id="no verbs",
        ),
        pytest.param(
            having(f"{INFO}/entry_points.txt", ENTRIES + "sync = device_agent.sync:verb\n"),
            "entry point sync leads to device_agent.sync:verb, which is not in it",
            id="a verb that leads nowhere",
        ),
        pytest.param(
            having(f"{INFO}/METADATA", METADATA + "Requires-Dist: torch==2.13.0\n"),
            "the base install asks for torch==2.13.0",
            id="a heavy base",
        ),
        pytest.param(
            having(f"{INFO}/METADATA", METADATA.replace("3.11", "3.9")), "Requires-Python is not >=3.11", id="Python"
        ),
        pytest.param(
            having(f"{INFO}/METADATA", METADATA.replace("Apache-2.0", "MIT")),
            "License-Expression is not Apache-2.0",
            id="another licence",
        ),
    ],
)
def test_a_problem_is_named(tree: Path, change: Callable[[Files], None], problem: str) -> None:
    files = good(tree)
    change(files)
    assert problems(tree, files) == [problem]


def test_a_file_that_is_no_wheel_is_noticed(tree: Path) -> None:
    assert "no .dist-info folder" in problems(tree, {"readme": "x"})
