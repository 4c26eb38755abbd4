"""A small repository and sources for it, in a world where waiting takes no time."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from device_agent.sync.records import LinkSettings, Source
from device_agent.sync.transport import open_source
from device_agent.sync.transport.surroundings import Surroundings
from edgekit.release.names import pack_path
from tests.hostile_http import Asked, Hostile
from tests.worlds import World

SETTINGS = LinkSettings()

DATA = random.Random(7).randbytes(300_000)
PACK = pack_path("ab" * 32)
TIMESTAMP = "metadata/timestamp.json"
FILES = {PACK: DATA, TIMESTAMP: b'{"version": 2}'}

fresh_and_resumed = pytest.mark.parametrize("start", [0, 123_457], ids=["fresh", "resumed"])


def surroundings(world: World, environment: Mapping[str, str] | None = None) -> Surroundings:
    return Surroundings(
        clock=world.clock,
        ticks=world.clock,
        chance=lambda: 0.5,
        environment=environment or {},
        minute=lambda now: int(now // 60) % 1440,
    )


def opened(
    *repositories: str,
    world: World | None = None,
    settings: LinkSettings = SETTINGS,
    environment: Mapping[str, str] | None = None,
    most_bytes_per_s: int | None = None,
) -> Source:
    world = world or World()
    if most_bytes_per_s is not None:
        settings = replace(settings, most_bytes_per_s=most_bytes_per_s)
    around = surroundings(world, environment)
    return open_source(repositories, settings=settings, stop=world, clock=world.clock, surroundings=around)


def fetched(source: Source, path: str, data: bytes, *, start: int = 0, length: int | None = None) -> bytes:
    """A part of a file that should be `data`; all of the rest without `length`."""
    return b"".join(source.stream(path, start=start, length=length or len(data) - start, size=len(data)))


def bodies(server: Hostile) -> list[str | None]:
    """The ranges that were asked for."""
    return [asked.range for asked in server.asked]


def begin_of(asked: Asked) -> int:
    """Where a request begins."""
    return int((asked.range or "bytes=0-").removeprefix("bytes=").partition("-")[0])
