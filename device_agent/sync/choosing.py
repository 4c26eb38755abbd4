"""Which channel an operator means who names none. Pure."""

from device_agent.releases.records import State
from device_agent.sync.records import LinkSettings
from edgekit.errors import Refused


def channel_of(asked: str | None, state: State, settings: LinkSettings) -> str:
    """The one that was named, else the only one. Raises Refused for one that is not there, or if there are several."""
    known = sorted({*settings.channels, *(line.channel for line in state.lines)})
    if asked is None and len(known) == 1:
        return known[0]
    if asked in known:
        return asked
    names = ", ".join(known) or "none"
    if asked is None:
        raise Refused(f"say which channel: there are {names}")
    raise Refused(f"this device follows no channel {asked}: there are {names}")
