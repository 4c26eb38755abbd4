"""The agent's state has one place, and a variable that says which."""

import sys
from pathlib import Path

import pytest

from edgekit.home import home

VARIABLES = ("EDGEKIT_HOME", "XDG_DATA_HOME", "LOCALAPPDATA")
CASES = {
    "chosen": ({"EDGEKIT_HOME": "/srv/agent", "XDG_DATA_HOME": "/data"}, "linux", "/srv/agent"),
    "empty": ({"EDGEKIT_HOME": "", "XDG_DATA_HOME": "/data"}, "linux", "/data/edgekit"),
    "Linux": ({}, "linux", "/home/ada/.local/share/edgekit"),
    "Linux with a relative XDG_DATA_HOME": ({"XDG_DATA_HOME": "data"}, "linux", "/home/ada/.local/share/edgekit"),
    "macOS": ({"XDG_DATA_HOME": "/data"}, "darwin", "/home/ada/Library/Application Support/edgekit"),
    "Windows": ({"LOCALAPPDATA": "/local"}, "win32", "/local/edgekit"),
    "Windows without LOCALAPPDATA": ({}, "win32", "/home/ada/AppData/Local/edgekit"),
}


@pytest.mark.parametrize(("variables", "platform", "expected"), CASES.values(), ids=CASES)
def test_the_folder_is_the_chosen_one_or_the_platforms(
    variables: dict[str, str], platform: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    assert home() == Path(expected)
