"""Sources for these tests, in a world where waiting takes no time."""

from collections.abc import Mapping
from dataclasses import replace

from device_agent.sync.records import LinkSettings, Source
from device_agent.sync.transport import open_source
from device_agent.sync.transport.surroundings import Surroundings
from tests.worlds import World

SETTINGS = LinkSettings()


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
