"""What people may write as a repository, and what they get to see of it."""

import threading
from pathlib import Path

import pytest
import urllib3.exceptions

from device_agent.sync.records import LinkSettings, Window
from device_agent.sync.transport import address, open_source
from device_agent.sync.transport.address import UNREADABLE, shown
from device_agent.sync.transport.open import SCHEMES, scheme_of
from device_agent.sync.transport.throttle import is_open
from device_agent.sync.transport.web import problem_of, proxies, proxy_of
from edgekit.errors import UsageError
from tests.device_agent.sync.transport.opening import opened


@pytest.mark.parametrize(
    ("text", "name", "file"),
    [
        ("https://models.example", "https://models.example", "https://models.example/a%2Bb/c"),
        ("https://models.example/", "https://models.example", "https://models.example/a%2Bb/c"),
        ("HTTP://Models.Example:80/x/y/", "http://models.example/x/y", "http://models.example/x/y/a%2Bb/c"),
        ("https://models.example:8443/x", "https://models.example:8443/x", "https://models.example:8443/x/a%2Bb/c"),
        ("http://[::1]:81/x", "http://[::1]:81/x", "http://[::1]:81/x/a%2Bb/c"),
        ("https://me:secret@models.example/x", "https://models.example/x", "https://models.example/x/a%2Bb/c"),
        ("https://me@models.example/x", "https://models.example/x", "https://models.example/x/a%2Bb/c"),
    ],
)
def test_an_address_is_taken_apart_and_a_password_is_never_shown(text: str, name: str, file: str) -> None:
    found = address.parse(text)
    assert found.name == name == opened(text).name
    assert found.file("a+b/c") == file
    assert (found.secret is not None) == ("@" in text)


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "https://me:secret@",
        "https://h:secret/",
        "http://h:99999999/",
        "https://me:secret@h/x?a=1",
        "http://h/#x",
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("https://user:secret@example.org:8443/r?token=t#f", "https://example.org:8443/r"),
        ("oci://user:secret@registry.example.org:5000/models/tiny:1", "oci://registry.example.org:5000/models/tiny:1"),
        ("https://user:sec/ret@example.org/r", UNREADABLE),
        ("https://user:se?cret@example.org/r", UNREADABLE),
        ("https://user:se#cret@example.org/r", UNREADABLE),
        ("https://user:secret@[::1", UNREADABLE),
        ("file:///media/a@b", "file:///media/a@b"),
        ("/media/usb", "/media/usb"),
        ("C:\\reports", "C:\\reports"),
    ],
)
def test_no_password_is_shown(place: str, said: str) -> None:
    assert shown(place) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://h/x", r"ftp:// is no way.*https://, http://, oci://, file://"),
        ("s3://bucket/x", "s3:// is no way"),
        ("file://server/share", "a folder of this machine"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_opened_is_said_with_what_can(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        opened(text)


def test_without_a_repository_there_is_nothing_to_open() -> None:
    with pytest.raises(UsageError, match="No repository"):
        opened()


def test_registries_and_others_are_no_mirrors_of_each_other() -> None:
    for mixed in (("oci://r.example/a:b", "https://models.example"), ("/media/usb", "oci://r.example/a:b")):
        with pytest.raises(UsageError, match="mirrors are all of one kind"):
            opened(*mixed)


def test_opening_asks_nothing(tmp_path: Path) -> None:
    source = open_source(
        ["https://models.invalid", str(tmp_path / "x.tar"), str(tmp_path / "y")],
        settings=LinkSettings(),
        stop=threading.Event(),
    )
    assert source.name == "https://models.invalid"
    source.close()


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("C:/models", ""), ("C:\\models", ""), ("/media/usb", ""), ("HTTPS://x", "https"), ("c://x", ""), ("a://b", "")],
)
def test_a_drive_of_windows_is_no_scheme(text: str, scheme: str) -> None:
    assert scheme_of(text) == scheme
    assert scheme in SCHEMES


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert opened("~/models").name == str(tmp_path / "models")


# --- proxies ----------------------------------------------------------------------------------

MODELS = ("https", "models.example", 443)
LOCAL = ("http", "localhost", 8080)


@pytest.mark.parametrize(
    ("environment", "origin", "proxy"),
    [
        ({}, MODELS, None),
        ({"https_proxy": "http://p:1"}, MODELS, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, MODELS, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:1"}, MODELS, "http://q:1"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": ""}, MODELS, None),
        ({"http_proxy": "http://p:1"}, MODELS, None),
        ({"http_proxy": "p:1"}, LOCAL, "http://p:1"),
        ({"all_proxy": "http://p:1"}, MODELS, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTP_PROXY": "http://q:1"}, LOCAL, "http://q:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, LOCAL, None),
        ({"https_proxy": "http://p:1", "no_proxy": "models.example"}, MODELS, None),
        ({"https_proxy": "http://p:1", "NO_PROXY": "a, .example"}, MODELS, None),
        ({"https_proxy": "http://p:1", "no_proxy": "example.org"}, MODELS, "http://p:1"),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, MODELS, None),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost:8080"}, LOCAL, None),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost:81"}, LOCAL, "http://p:1"),
    ],
)
def test_proxies_come_from_the_variables_that_every_program_reads(
    environment: dict[str, str], origin: address.Origin, proxy: str | None
) -> None:
    assert proxy_of(origin, proxies(environment)) == proxy


# --- hours, and words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "minute", "open_then"),
    [
        ([], 0, True),
        ([(60, 120)], 59, False),
        ([(60, 120)], 60, True),
        ([(60, 120)], 119, True),
        ([(60, 120)], 120, False),
        ([(1380, 60)], 1380, True),
        ([(1380, 60)], 1439, True),
        ([(1380, 60)], 0, True),
        ([(1380, 60)], 60, False),
        ([(1380, 60)], 720, False),
        ([(0, 0)], 0, False),
        ([(0, 60), (120, 180)], 150, True),
        ([(0, 60), (120, 180)], 90, False),
    ],
)
def test_hours(windows: list[tuple[int, int]], minute: int, open_then: bool) -> None:
    assert is_open([Window(begin_minute=begin, end_minute=end) for begin, end in windows], minute) == open_then


def _kinds(kind: type[BaseException]) -> list[type[BaseException]]:
    return [kind, *(below for sub in kind.__subclasses__() for below in _kinds(sub))]


@pytest.mark.parametrize("kind", _kinds(urllib3.exceptions.HTTPError), ids=lambda kind: kind.__name__)
def test_every_error_of_the_library_has_words(kind: type[urllib3.exceptions.HTTPError]) -> None:
    text = problem_of(kind.__new__(kind))
    assert text
    assert "urllib3" not in text
