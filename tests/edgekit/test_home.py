"""What the agent keeps goes where the platform wants it."""

from pathlib import Path

import pytest

from edgekit.home import home

CASES = {
    "asked for": ("linux", {"EDGEKIT_HOME": "/kept", "XDG_DATA_HOME": "/data"}, "/kept"),
    "the platform's own": ("linux", {"XDG_DATA_HOME": "/data"}, "/data/edgekit"),
    "the default": ("linux", {}, "/me/.local/share/edgekit"),
    "nothing": ("linux", {"EDGEKIT_HOME": "", "XDG_DATA_HOME": ""}, "/me/.local/share/edgekit"),
    "a relative path": ("linux", {"XDG_DATA_HOME": "data"}, "/me/.local/share/edgekit"),
    "macOS": ("darwin", {"XDG_DATA_HOME": "/data"}, "/me/Library/Application Support/edgekit"),
    "Windows": ("win32", {"LOCALAPPDATA": "/local"}, "/local/edgekit"),
    "Windows without its variable": ("win32", {}, "/me/AppData/Local/edgekit"),
}


@pytest.mark.parametrize("case", CASES)
def test_home_follows_the_environment(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, variables, expected = CASES[case]
    for name in ("EDGEKIT_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("edgekit.home.sys.platform", system)
    monkeypatch.setattr("edgekit.home.Path.home", lambda: Path("/me"))
    assert home() == Path(expected)
