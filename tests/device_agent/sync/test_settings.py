"""What people write about updates."""

import pytest

from device_agent.sync.records import LinkSettings, Window
from device_agent.sync.settings import channels_of, labels_of, link_settings, window_of, with_provisioning
from edgekit.errors import UsageError
from edgekit.release.provisioning import Provisioning
from edgekit.settings import SyncSettings

TOLD = Provisioning(
    format=1, root="{}", repositories=("https://one",), channels=("beta",), labels={"a": "1"}, report="https://reports"
)


def test_every_setting_arrives() -> None:
    found = link_settings(
        SyncSettings(
            repositories=("https://two",),
            channels=("stable", "stable"),
            labels=("site=lyon", "b=x=y"),
            report="/srv/reports",
            interval_s=60.0,
            windows=("22:00-06:00",),
            most_bytes_per_s=1000,
            least_bytes_per_s=10,
            reserve_bytes=5,
        )
    )
    assert found == LinkSettings(
        repositories=("https://two",),
        channels=("stable",),
        labels={"site": "lyon", "b": "x=y"},
        report="/srv/reports",
        interval_s=60.0,
        windows=(Window(begin_minute=1320, end_minute=360),),
        most_bytes_per_s=1000,
        least_bytes_per_s=10,
        reserve_bytes=5,
    )


def test_what_the_settings_do_not_say_the_provisioning_file_does() -> None:
    found = with_provisioning(link_settings(SyncSettings()), TOLD, labels={"a": "1"})
    assert (found.repositories, found.channels, found.report) == (("https://one",), ("beta",), "https://reports")
    assert found.labels == {"a": "1"}


def test_what_they_say_counts_more() -> None:
    said = SyncSettings(repositories=("/media/usb",), channels=("stable",), labels=("a=2", "c=3"), report="/r")
    found = with_provisioning(link_settings(said), TOLD, labels={"a": "1", "b": "1"})
    assert (found.repositories, found.channels, found.report) == (("/media/usb",), ("stable",), "/r")
    assert found.labels == {"a": "2", "b": "1", "c": "3"}


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [("22:00-06:00", 1320, 360), (" 8:30 - 9:00 ", 510, 540), ("00:00-24:00", 0, 0), ("23:59-0:00", 1439, 0)],
)
def test_windows_are_times_of_the_day(text: str, begin: int, end: int) -> None:
    if begin == end:
        with pytest.raises(UsageError):
            window_of(text)
    else:
        assert window_of(text) == Window(begin_minute=begin, end_minute=end)


@pytest.mark.parametrize(
    "text", ["", "night", "22-06", "25:00-06:00", "22:60-06:00", "22:00", "22:00-22:00", "٢٢:00-06:00"]
)
def test_a_wrong_window_is_said_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="22:00-06:00"):
        window_of(text)


@pytest.mark.parametrize(
    "given", [["site"], ["=lyon"], ["a=1", "a=2"], ["a" * 101 + "=1"], [f"l{i}=1" for i in range(101)]]
)
def test_wrong_labels_are_said(given: list[str]) -> None:
    with pytest.raises(UsageError):
        labels_of(given)


def test_wrong_channels_are_said() -> None:
    with pytest.raises(UsageError, match="Stable"):
        channels_of(["Stable"])
