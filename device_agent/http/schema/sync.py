"""POST /v1/edgekit/sync/...: which channel is meant, and which release."""

import msgspec

from device_agent.http.schema.form import Form
from edgekit.release.names import ChannelName, ReleaseId


class ChannelBody(msgspec.Struct, kw_only=True):
    """Without `channel`, the only one that the device follows."""

    channel: ChannelName | None = None


class PinBody(msgspec.Struct, kw_only=True):
    """Without `release`, the one that is active."""

    channel: ChannelName | None = None
    release: ReleaseId | None = None


CHANNEL = Form(shape=ChannelBody)
PIN = Form(shape=PinBody)
