"""Carrying a report to where reports are collected: a web server that takes PUT, or a folder, such as a stick's.

Nothing home-made is needed on the other side: nginx takes reports with

    location /reports/ {
        root                 /srv/fleet;
        client_body_temp_path /srv/fleet/incoming;   # on the same disk, so that a report appears whole
        client_max_body_size 64k;
        dav_methods          PUT;
        create_full_put_path on;
        limit_except PUT { deny all; }               # and whatever lets your devices in: auth_basic, certificates
    }

Who can write there can also overwrite a report with nonsense: that is ignored, as it lacks the device's signature, but
the report is gone until the device's next one.
"""

import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass, url2pathname

import urllib3
from urllib3.exceptions import HTTPError

from device_agent.sync.transport.address import shown
from device_agent.sync.transport.pace import Pace
from device_agent.sync.transport.web import paced_pools
from edgekit import __version__
from edgekit.errors import Unreachable
from edgekit.files import write_durably
from edgekit.release.reports import MAX_REPORT_BYTES, SUFFIX

RETURNS = "returns"
"""A folder in a repository on a stick: devices leave their reports there, and the stick carries them home."""

PATIENCE_S = 30.0
"""A report that has not gone out by then goes with the next look: no update waits for it."""

_TIMEOUT = urllib3.Timeout(connect=10.0, read=20.0)


def places(report: str | None, repositories: Sequence[str]) -> tuple[str, ...]:
    """Where a device's report goes: to where its settings say, and onto every stick that has a folder for it."""
    found = [] if report is None else [report]
    for repository in repositories:
        folder = folder_of(repository)
        if folder is not None:
            returns = (folder.parent if folder.suffix == ".tar" else folder) / RETURNS
            # On a stranger's stick it may be a link to anywhere on this device; of one that dies Path.is_dir raises.
            is_there = os.path.isdir(returns) and not os.path.islink(returns)  # noqa: PTH112, PTH114
            found += [str(returns)] if is_there and str(returns) not in found else []
    return tuple(found)


def folder_of(place: str) -> Path | None:
    """The folder that a place is, None for one that is reached otherwise."""
    if place.lower().startswith("file://"):
        return Path(url2pathname(urlsplit(place).path))
    return None if "://" in place else Path(place)


def deliver(envelope: bytes, device_id: str, place: str) -> None:
    """Bring a report to one place; it replaces the one before. Raises Unreachable, after `PATIENCE_S` at the latest."""
    failed: list[Exception] = []

    def carry() -> None:
        try:
            folder = folder_of(place)
            if folder is None:
                _put(envelope, f"{place.rstrip('/')}/{device_id}{SUFFIX}")
            else:
                _leave(envelope, folder, device_id + SUFFIX)
        except (HTTPError, OSError, ValueError, Unreachable) as error:
            failed.append(error)

    # A thread, since no timeout of a socket bounds a server that sends one byte now and then, or a dying stick.
    thread = threading.Thread(target=carry, name="report", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if thread.is_alive():
        raise Unreachable(f"{shown(place)} did not take the report within {PATIENCE_S:.0f} s")
    if failed:
        raise Unreachable(f"{shown(place)} did not take the report: {_why(failed[0])}")


def _why(error: Exception) -> str:
    if isinstance(error, Unreachable):
        return error.problem
    return error.strerror or str(error) if isinstance(error, OSError) else type(error).__name__


def _leave(envelope: bytes, folder: Path, name: str) -> None:
    path = folder / name
    info = path.lstat() if os.path.lexists(path) else None
    if info is not None and not stat.S_ISREG(info.st_mode):
        raise OSError(f"{name} is there already, and is no file")
    if info is not None and info.st_size == len(envelope):
        with path.open("rb") as stream:
            if stream.read(MAX_REPORT_BYTES) == envelope:
                return
    write_durably(path, envelope)


def _put(envelope: bytes, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OSError("it is neither http(s):// nor a folder")
    headers = {"Content-Type": "application/json", "User-Agent": f"edgekit/{__version__}"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers |= urllib3.make_headers(basic_auth=user)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    with _pool(parts.scheme, parts.hostname) as pool:
        reply = pool.request(
            "PUT",
            bare,
            body=envelope,
            headers=headers,
            timeout=_TIMEOUT,
            retries=False,
            redirect=False,
            preload_content=False,  # what it answers is of no interest, however long it is
        )
        reply.close()
        if reply.status not in range(200, 300):
            raise OSError(f"it answered {reply.status}")


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    manager = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
    manager.pool_classes_by_scheme = paced_pools(Pace(least_bytes_per_s=0.0, ticks=time.monotonic))
    return manager
