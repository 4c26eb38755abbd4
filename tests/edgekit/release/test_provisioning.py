"""What a device is told before it trusts anything: read as it was written, or refused."""

from typing import Any

import msgspec
import pytest

from edgekit.errors import UsageError
from edgekit.release.provisioning import MAX_PROVISIONING_BYTES, Provisioning, check_place, parse

FULL = Provisioning(
    format=1,
    root='{"signed": {}}',
    floors={"tiny": 3},
    repositories=("https://example.org/models", "/media/usb"),
    channels=("stable", "beta"),
    labels={"site": "lyon"},
    report="https://example.org/reports",
)


@pytest.mark.parametrize("told", [FULL, Provisioning(format=1, root="{}")], ids=["full", "least"])
def test_it_is_read_as_it_was_written(told: Provisioning) -> None:
    assert parse(told.to_bytes(), path="x") == told
    assert parse(told.to_bytes(), path="x").to_bytes() == told.to_bytes()


def test_without_channels_it_is_the_one_that_everybody_has() -> None:
    assert parse(b'{"format": 1, "root": "{}"}', path="x").channels == ("stable",)


WRONG: dict[str, dict[str, Any]] = {
    "a later format": {"format": 2},
    "an unknown field": {"run": "rm"},
    "a floor below zero": {"floors": {"tiny": -1}},
    "a floor that never ends": {"floors": {"tiny": 1 << 53}},
    "a floor of a path": {"floors": {"../tiny": 1}},
    "a channel that is a path": {"channels": ["../stable"]},
    "a label of nothing": {"labels": {"site": ""}},
    "a root that is no text": {"root": {}},
    "a root beyond all bounds": {"root": "x" * (600 << 10)},
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
def test_what_is_none_is_refused_by_its_name(changed: dict[str, Any]) -> None:
    facts = msgspec.json.decode(FULL.to_bytes()) | changed
    with pytest.raises(UsageError, match="the-file"):
        parse(msgspec.json.encode(facts), path="the-file")


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (MAX_PROVISIONING_BYTES + 1)])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(UsageError, match="the-file"):
        parse(raw, path="the-file")


@pytest.mark.parametrize(
    "place",
    [
        "https://models.example/fleet",
        "HTTP://models.example/",
        "oci://registry.example/models/tiny:stable",
        "file:///srv/models",
        "/media/usb",
        "/media/usb/all.tar",
        "C:\\models",
        "C:/models",
    ],
)
def test_places_that_devices_can_look_at(place: str) -> None:
    check_place(place)


@pytest.mark.parametrize("place", ["ftp://models.example", "s3://bucket/models", "models", "./models", "", "~/models"])
def test_places_that_no_device_could_find(place: str) -> None:
    with pytest.raises(UsageError):
        check_place(place)
