"""Where the agent keeps what it makes for itself on this machine."""

import os
import sys
from pathlib import Path


def home() -> Path:
    """`EDGEKIT_HOME`, or `edgekit` in the platform's folder for a user's data. It may not exist yet."""
    if given := os.environ.get("EDGEKIT_HOME"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "edgekit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgekit"
    # The XDG Base Directory specification: a path that is not absolute is to be ignored.
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "edgekit"
