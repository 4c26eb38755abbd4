"""Who we are to a registry: by the environment, or as `docker login` left it."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgekit.errors import UsageError
from export.publish.registry import Credentials

MAX_CONFIG_BYTES = 1 << 20


class _Login(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""


class _Config(msgspec.Struct, frozen=True):
    auths: dict[str, _Login] = {}


def credentials_for(host: str, environment: Mapping[str, str]) -> Credentials:
    """Name and password for a registry; nobody's, if none are known.

    EDGEKIT_REGISTRY_USER and EDGEKIT_REGISTRY_PASSWORD count first, then `auths` of docker's config.json, in
    DOCKER_CONFIG or ~/.docker. Programs that keep passwords (credHelpers) are not started. Raises UsageError.
    """
    if user := environment.get("EDGEKIT_REGISTRY_USER", ""):
        return Credentials(user=user, password=environment.get("EDGEKIT_REGISTRY_PASSWORD", ""))
    folder = environment.get("DOCKER_CONFIG") or Path(environment.get("HOME", "~")).expanduser() / ".docker"
    file = Path(folder) / "config.json"
    try:
        with file.open("rb") as stream:
            found = msgspec.json.decode(stream.read(MAX_CONFIG_BYTES), type=_Config)
    except FileNotFoundError:
        return Credentials()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not what `docker login` writes: {error}."[:500]) from error
    logins = (login for name, login in found.auths.items() if _host(name) == host)
    return next(map(_credentials, logins), Credentials())


def _host(name: str) -> str:
    """Docker writes `host[:port]`, and older versions `https://host/v1/`."""
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def _credentials(login: _Login) -> Credentials:
    try:
        user, _, password = base64.b64decode(login.auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        user = password = ""
    return Credentials(user=user or login.username, password=password or login.password)
