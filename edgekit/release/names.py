"""The grammar of every name in a repository, and of the paths that a release may write on any device's disk."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from edgekit.manifest import is_safe_path

MOST_ID_CHARS = 90
"""The longest name, `<sha256>.<base>..<release>.json`, must be one on every file system: 255 characters at most."""

ReleaseId = Annotated[
    str, msgspec.Meta(min_length=1, max_length=MOST_ID_CHARS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
]
"""`<name>-<version>` of a bundle or an adapter; unique in a repository, and never given twice."""

ChannelName = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")]

RELEASES, ROLLOUT = "releases", "rollout"
"""The two delegated roles."""

MOST_PATH_CHARS = 200
MOST_PART_BYTES = 255
"""Of a name in a folder: what Linux's file systems hold."""

PACK_SUFFIX = ".pack"

_RESERVED = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?\Z", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def release_target(release: str) -> str:
    """TUF target path of a release's manifest."""
    return f"releases/{release}.json"


def channel_target(channel: str) -> str:
    """TUF target path of a channel file."""
    return f"channels/{channel}.json"


def delta_target(base: str, release: str) -> str:
    """TUF target path of the index of differences from `base` to `release`."""
    return f"deltas/{base}..{release}.json"


def pack_path(sha256: str) -> str:
    """Path of a pack in the repository."""
    return f"packs/{sha256[:2]}/{sha256}{PACK_SUFFIX}"


def target_path(target: str, sha256: str) -> str:
    """Path in the repository of a TUF target, with its digest before its name (consistent snapshot)."""
    folder, _, name = target.rpartition("/")
    return f"targets/{folder}/{sha256}.{name}"


def unportable(path: str) -> str | None:
    """Why a relative path cannot be a file on every device (Linux, Windows, macOS, FAT); None if it can."""
    if len(path) > MOST_PATH_CHARS:
        return f"it is longer than {MOST_PATH_CHARS} characters"
    if not is_safe_path(path):
        return "it is not a plain path inside the folder"
    if unicodedata.normalize("NFC", path) != path:
        return "it is not in Unicode's normal form C"
    return next((problem for part in path.split("/") if (problem := _unportable_part(part))), None)


def _unportable_part(part: str) -> str | None:
    if _FORBIDDEN.search(part) or not part.isprintable():
        return "it has a character that not every file system knows"
    if _RESERVED.match(part):
        return f"{part!r} is a device on Windows"
    if len(part.encode()) > MOST_PART_BYTES:
        return f"a part is longer than {MOST_PART_BYTES} bytes"
    if part[-1] in ". " or part[0] == ".":
        return "a part begins with a dot, or ends with a dot or a space"
    return None


def twins(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two paths that cannot both be where case does not count, or of which one is a folder of the other; or None.

    Folders count too: `Data/a` and `data/b` are in one folder on some disks and in two on others.
    """
    files: dict[str, str] = {}
    folders: dict[str, tuple[str, str]] = {}  # as it is written first, and the path in it
    for path in sorted(paths):
        other = files.get(_folded(path))
        if other is not None:
            return other, path
        files[_folded(path)] = path
        for folder in _folders(path):
            written, other = folders.setdefault(_folded(folder), (folder, path))
            if written != folder:
                return other, path
    return next(((files[folded], folders[folded][1]) for folded in sorted(files.keys() & folders.keys())), None)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def _folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))
