"""How fast, when, and whether at all: C13 to C15 of the study."""

from pathlib import Path

import pytest

from device_agent.sync.records import LinkSettings, Source, Window
from edgekit.errors import Unreachable
from tests.device_agent.sync.transport.opening import (
    DATA,
    FILES,
    PACK,
    TIMESTAMP,
    bodies,
    fetched,
    fresh_and_resumed,
    opened,
)
from tests.hostile_http import (
    Hostile,
    cut,
)
from tests.worlds import World


@pytest.mark.parametrize("cap", [200_000, 20_000, 1_000_000])
def test_c13_a_cap_is_held_within_a_tenth_over_ten_seconds(server: Hostile, cap: int) -> None:
    world = World()
    source = opened(server.url, world=world, most_bytes_per_s=cap)
    begun, came = world.now, 0
    while world.now - begun < 10.0:
        for piece in source.stream(PACK, start=0, length=len(DATA), size=len(DATA)):
            came += len(piece)
            if world.now - begun >= 10.0:
                break
    assert came / (world.now - begun) == pytest.approx(cap, rel=0.1)


def test_c13_a_pause_is_not_made_up_for_by_a_burst(server: Hostile) -> None:
    world = World()
    source = opened(server.url, world=world, most_bytes_per_s=100_000)
    fetched(source, PACK, DATA)
    world.now += 3600
    begun = world.now
    fetched(source, PACK, DATA)
    assert world.now - begun == pytest.approx(len(DATA) / 100_000, rel=0.1)


def test_c13_a_folder_is_as_fast_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / PACK
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    world = World()
    night = LinkSettings(windows=(Window(begin_minute=0, end_minute=0),), most_bytes_per_s=1)
    assert fetched(opened(str(tmp_path), world=world, settings=night), PACK, DATA) == DATA
    assert world.waited == []


def test_c14_a_window_that_closes_in_the_middle_ends_the_stream_and_the_next_one_goes_on(server: Hostile) -> None:
    world = World(now=86_400.0 * 9 + 60 * 59)  # one minute to one o'clock
    night = LinkSettings(windows=(Window(begin_minute=23 * 60, end_minute=60),), most_bytes_per_s=2_000)
    source, got = opened(server.url, world=world, settings=night), bytearray()
    with pytest.raises(Unreachable, match="outside of the hours"):
        for piece in source.stream(PACK, start=0, length=len(DATA), size=len(DATA)):
            got += piece
    assert len(got) == pytest.approx(2_000 * 60, rel=0.1)
    assert len(server.asked) == 1, "no mirror is at fault"
    with pytest.raises(Unreachable, match="outside of the hours"):
        fetched(source, PACK, DATA, start=len(got))
    assert len(server.asked) == 1
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP], "what is offered may be looked at at any hour"
    world.now += 22 * 3600
    assert bytes(got) + fetched(source, PACK, DATA, start=len(got)) == DATA


@fresh_and_resumed
def test_c15_two_hours_without_a_network_cost_no_byte_that_came(start: int) -> None:
    with Hostile(FILES) as server:
        world, got, port = World(), bytearray(), server.port
        source = opened(server.url, world=world)
        server.always(cut(60_000))
        stream = source.stream(PACK, start=start, length=len(DATA) - start, size=len(DATA))
        while len(got) < 60_000:
            got += next(stream)
    with pytest.raises(Unreachable, match="is there a network"):
        next(stream)
    world.now += 7200
    with Hostile(FILES, port=port) as server:
        assert bytes(got) + fetched(source, PACK, DATA, start=start + len(got)) == DATA[start:]
        assert bodies(server) == [f"bytes={start + len(got)}-{len(DATA) - 1}"]


def test_c14_no_mirror_is_at_fault_for_the_hour(server: Hostile, second: Hostile) -> None:
    world = World(now=86_400.0 * 9 + 60 * 59)
    night = LinkSettings(windows=(Window(begin_minute=23 * 60, end_minute=60),), most_bytes_per_s=2_000)
    source = opened(server.url, second.url, world=world, settings=night)
    with pytest.raises(Unreachable, match="outside of the hours"):
        fetched(source, PACK, DATA)
    assert source.name == server.url
    assert second.asked == []


def test_it_stops_when_it_is_told_to(server: Hostile) -> None:
    world = World()
    source: Source = opened(server.url, world=world, most_bytes_per_s=10_000)
    world.stops_at = world.now + 2
    got = 0
    with pytest.raises(Unreachable, match="was stopped"):
        for piece in source.stream(PACK, start=0, length=len(DATA), size=len(DATA)):
            got += len(piece)
    assert 10_000 < got < 30_000
    assert world.now == world.stops_at
