"""AccessSettings: who is let in."""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from edgekit.errors import UsageError

Auth = Literal["local", "required"]
AUTHS: tuple[Auth, ...] = ("local", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """With `auth` "local", programs on this machine may make tokens without a key; with "required", nobody may.

    What changes the agent's state needs a key with the scope `admin` in either case.
    """

    auth: Auth = "local"


def check_exposure(host: str, settings: AccessSettings) -> None:
    """Whether it may listen on `host`. Raises UsageError where other machines would find a door without a lock."""
    if settings.auth != "required" and not _is_loopback(host):
        raise UsageError(
            f"cannot listen on {host or 'every address'}: other machines could use this agent without a key. "
            'Set auth = "required" and make keys with `edgekit keys add NAME`, or listen on 127.0.0.1.'
        )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
