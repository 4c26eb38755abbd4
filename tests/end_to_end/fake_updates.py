"""What /v1/edgekit/sync answers, as a fake agent's test wants it."""

import time
from typing import Any

Json = dict[str, Any]
MB = 1_000_000
MOVED: Json = {"moved_bytes": 11 * MB, "reused_bytes": 95 * MB, "seconds": 42}


def entry(ending: str, release: str | None, *, minutes_ago: float = 5, **changed: Any) -> Json:
    """One outcome of the history."""
    found: Json = {
        "at": time.time() - minutes_ago * 60,
        "does": "update",
        "channel": "stable",
        "ending": ending,
        "release": release,
        "reason": "",
        "exit_code": 0 if ending in ("installed", "current", "held") else 67,
        "moved_bytes": 0,
        "reused_bytes": 0,
        "seconds": 1.5,
    }
    return found | changed


def line(**changed: Any) -> Json:
    """What a channel has brought."""
    found: Json = {
        "channel": "stable",
        "active": "tiny-instruct-1.2",
        "previous": "tiny-instruct-1.1",
        "trial": None,
        "soaking": False,
        "tries_left": 0,
        "pin": None,
        "offered": {"release": "tiny-instruct-1.2", "reason": "", "cost": None},
        "last": entry("current", "tiny-instruct-1.2"),
        "warnings": [],
    }
    return found | changed


def offer(**changed: Any) -> Json:
    """A release that is to be had."""
    cost = {
        "fetch_bytes": 11 * MB,
        "delta_bytes": 9 * MB,
        "reused_bytes": 95 * MB,
        "full_bytes": 106 * MB,
        "disk_bytes": 60 * MB,
    }
    return {"release": "tiny-instruct-1.3", "reason": "offered", "cost": cost} | changed


def progress(phase: str = "idle", **changed: Any) -> Json:
    """Where an update is."""
    found: Json = {"phase": phase, "channel": None, "release": None, "done_bytes": 0, "total_bytes": 0}
    return found | {"bytes_per_s": None, "eta_s": None} | changed


def sync(**changed: Any) -> Json:
    """All of it."""
    now = time.time()
    return {
        "object": "edgekit.sync",
        "enrolled": True,
        "device": "1f0c9a5b7e",
        "labels": {"site": "lyon"},
        "repositories": ["https://models.example/fleet"],
        "state": progress(),
        "busy": None,
        "problem": None,
        "lines": [line()],
        "trust": {
            "fresh": True,
            "expires": now + 20 * 86_400,
            "root_version": 2,
            "timestamp_version": 1_204,
            "clock_reliable": True,
            "releases": 6,
        },
        "refusals": [],
        "installed": [
            {"id": "tiny-instruct-1.2", "kind": "model", "bytes": 106 * MB, "active": True},
            {"id": "tiny-instruct-1.1", "kind": "model", "bytes": 105 * MB, "active": False},
        ],
        "disk": {"free_bytes": 19_300 * MB, "used_bytes": 211 * MB},
        "checked_at": now - 300,
        "succeeded_at": now - 300,
        "next_look_at": now + 3_300,
        "fetches_at": None,
        "history": [
            entry("current", "tiny-instruct-1.2"),
            entry(
                "installed",
                "tiny-instruct-1.2",
                minutes_ago=3_000,
                moved_bytes=11 * MB,
                reused_bytes=95 * MB,
                seconds=42,
            ),
        ],
    } | changed
