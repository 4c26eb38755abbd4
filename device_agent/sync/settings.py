"""From what people write about updates to what the link works with. Pure."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import msgspec

from device_agent.sync.records import LinkSettings, Window
from edgekit.errors import UsageError
from edgekit.release.channel import Label
from edgekit.release.names import ChannelName
from edgekit.release.provisioning import Provisioning
from edgekit.settings import SyncSettings

_WINDOW = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})", re.ASCII)
_MOST_LABELS = 100


def link_settings(settings: SyncSettings) -> LinkSettings:
    """As the settings say; where they say nothing, the provisioning file counts. Raises UsageError."""
    return LinkSettings(
        repositories=settings.repositories,
        channels=channels_of(settings.channels),
        interval_s=settings.interval_s,
        most_bytes_per_s=settings.most_bytes_per_s or None,
        least_bytes_per_s=settings.least_bytes_per_s,
        windows=tuple(map(window_of, settings.windows)),
        reserve_bytes=settings.reserve_bytes,
        report=settings.report,
        labels=labels_of(settings.labels),
    )


def with_provisioning(settings: LinkSettings, provisioning: Provisioning, *, labels: Mapping[str, str]) -> LinkSettings:
    """Completed by what the device was told when it was enrolled; `labels` are those that it was given then."""
    return dataclasses.replace(
        settings,
        repositories=settings.repositories or provisioning.repositories,
        channels=settings.channels or provisioning.channels,
        report=settings.report or provisioning.report,
        labels={**labels, **settings.labels},
    )


def window_of(text: str) -> Window:
    """Of "22:00-06:00", in local time. Raises UsageError."""
    match = _WINDOW.fullmatch(text.strip())
    if match is not None:
        begin, end = (_minute(match[i], match[i + 1]) for i in (1, 3))
        if begin is not None and end is not None and begin != end:
            return Window(begin_minute=begin, end_minute=end)
    raise UsageError(f'sync.windows: {text[:50]!r} is no time of the day such as "22:00-06:00".')


def _minute(hours: str, minutes: str) -> int | None:
    found = int(hours) * 60 + int(minutes)
    return found % (24 * 60) if found <= 24 * 60 and int(minutes) < 60 else None


def labels_of(given: Sequence[str]) -> dict[str, str]:
    """Of "site=lyon". Raises UsageError."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or name in found:
            raise UsageError(f'{text[:50]!r} is no label such as "site=lyon", or is there twice.')
        found[name] = value
    if len(found) > _MOST_LABELS:
        raise UsageError(f"a device has {_MOST_LABELS} labels at most.")
    try:
        return msgspec.convert(found, dict[Label, str])
    except msgspec.ValidationError as error:
        raise UsageError(f"a label cannot be so: {error}") from error


def channels_of(given: Sequence[str]) -> tuple[str, ...]:
    """Names of channels, each once. Raises UsageError."""
    try:
        return msgspec.convert(tuple(dict.fromkeys(given)), tuple[ChannelName, ...])
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{', '.join(given)[:100]!r}: a channel's name has lower-case letters, digits, - and _."
        ) from error
