"""Looking at a repository as a device: from the folder, and from a web server, which may lie."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import CorruptRelease, NotInRepository, Unreachable, Untrusted
from export.publish.verify import FolderPlace, HttpPlace, Place, place_of, verify
from tests.export.publish.publishers import DAY, Publisher, publisher


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The standard library's server, which knows no ranges; `broken` paths answer 500."""

    broken: tuple[str, ...] = ()

    def send_head(self) -> Any:
        if self.path in self.broken:
            self.send_error(500)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base's
        """Say nothing."""


@pytest.fixture
def own(tmp_path: Path) -> Publisher:
    own = publisher(tmp_path)
    own.add("tiny", "1", channel="stable")
    return own


@pytest.fixture
def url(own: Publisher) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(own.repository.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def look(own: Publisher, place: Place, *, contents: bool = True) -> None:
    verify(place, own.repository.root(1), now=own.now, read=None if contents else ())


def test_a_web_server_shows_the_same_as_the_folder(own: Publisher, url: str) -> None:
    told: list[tuple[int, int]] = []
    found = verify(place_of(url), own.repository.root(1), now=own.now, tell=lambda *pair: told.append(pair))
    here = own.verify()
    assert (found.versions, found.releases, found.packs) == (here.versions, here.releases, here.packs)
    assert told[-1] == (found.pack_bytes, found.pack_bytes)
    assert here.ranges
    assert not found.ranges


def pack_of(own: Publisher) -> Path:
    return next((own.repository.folder / "packs").rglob("*.pack"))


@pytest.mark.parametrize("contents", [True, False])
def test_a_pack_that_is_short_or_missing_is_found(own: Publisher, url: str, *, contents: bool) -> None:
    pack = pack_of(own)
    pack.write_bytes(pack.read_bytes()[:-1])
    for place in (place_of(url), FolderPlace(own.repository.folder)):
        with pytest.raises(CorruptRelease):
            look(own, place, contents=contents)
    pack.unlink()
    for place in (place_of(url), FolderPlace(own.repository.folder)):
        with pytest.raises(NotInRepository):
            look(own, place, contents=contents)


def test_a_flipped_bit_is_found_by_reading(own: Publisher) -> None:
    pack = pack_of(own)
    raw = bytearray(pack.read_bytes())
    raw[3] ^= 1
    pack.write_bytes(raw)
    look(own, FolderPlace(own.repository.folder), contents=False)
    with pytest.raises(CorruptRelease, match="not what was published"):
        look(own, FolderPlace(own.repository.folder))


@pytest.mark.parametrize("folder", ["releases", "channels"])
def test_a_target_that_is_another_one_is_found(own: Publisher, folder: str) -> None:
    file = next((own.repository.folder / "targets" / folder).iterdir())
    file.write_bytes(file.read_bytes().replace(b"1", b"2"))
    with pytest.raises(CorruptRelease):
        look(own, FolderPlace(own.repository.folder))


def test_a_mirror_that_is_out_of_date_is_found(own: Publisher) -> None:
    own.now += 31 * DAY
    with pytest.raises(Untrusted, match=r"timestamp\.json is expired"):
        own.verify()


def test_another_repositorys_files_are_not_believed(own: Publisher, tmp_path: Path) -> None:
    other = publisher(tmp_path / "other")
    with pytest.raises(Untrusted):
        look(own, FolderPlace(other.repository.folder))


def test_a_server_that_fails_is_not_taken_for_an_empty_one(
    own: Publisher, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quiet, "broken", ("/metadata/timestamp.json",))
    with pytest.raises(Unreachable):
        look(own, place_of(url))
    with pytest.raises(Unreachable):
        look(own, place_of("http://127.0.0.1:9/"))


def test_a_password_in_a_url_is_not_shown() -> None:
    assert HttpPlace("https://me:secret@example.org/models/").name == "https://example.org/models"
