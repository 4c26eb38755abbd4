"""What a device is told about where to look."""

import pytest

from edgekit.errors import UsageError
from edgekit.release.provisioning import check_place


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
