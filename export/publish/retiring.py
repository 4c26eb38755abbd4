"""What channels must no longer name when a release goes. Pure."""

from collections.abc import Mapping

import msgspec

from edgekit.release.channel import Channel
from edgekit.release.manifest import Release
from edgekit.release.names import ChannelName, ReleaseId


def forget(channels: Mapping[ChannelName, Channel], release: ReleaseId) -> tuple[Channel, ...]:
    """New versions of channels that keep `release` for those who have nothing; what they offer stays as it is."""
    return tuple(_without(channel) for channel in channels.values() if channel.previous == release)


def forget_below(
    channels: Mapping[ChannelName, Channel], releases: Mapping[ReleaseId, Release], floors: Mapping[str, int]
) -> tuple[Channel, ...]:
    """The same for releases that are below a floor."""
    low = {one.id for one in releases.values() if one.sequence < floors.get(one.name, 0)}
    return tuple(_without(channel) for channel in channels.values() if channel.previous in low)


def _without(channel: Channel) -> Channel:
    return msgspec.structs.replace(channel, previous=None, version=channel.version + 1)
