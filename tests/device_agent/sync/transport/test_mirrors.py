"""Several mirrors, stale, lying and dead ones among them: C10 and C11 of the study."""

from pathlib import Path

import pytest

from edgekit.errors import NotInRepository
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
    Fault,
    Hostile,
    content_range,
    cut,
    flipped,
    gzipped,
    instead,
    portal,
    raw,
    redirected,
    says,
)
from tests.worlds import World


def test_c10_after_blame_the_next_mirror_is_asked_and_the_stale_one_last(server: Hostile, second: Hostile) -> None:
    server.always(instead(b'{"version": 1}'))
    source = opened(server.url, second.url)
    assert source.read(TIMESTAMP, limit=100) == b'{"version": 1}'
    source.blame()
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]
    source.blame()
    assert source.read(TIMESTAMP, limit=100) == b'{"version": 1}', "both are blamed once: the first one counts again"


def test_c10_a_file_that_a_mirror_does_not_have_yet_is_found_at_the_next(server: Hostile, second: Hostile) -> None:
    server.always(says(404))
    source = opened(server.url, second.url)
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]
    server.mend()
    source.read(TIMESTAMP, limit=100)
    assert len(server.asked) == 2, "it is not punished for that"


LIES: dict[str, Fault] = {
    "gzip": gzipped(),
    "range": content_range("bytes 1-2/3"),
    "416": says(416),
    "portal": portal(),
    "garbage": raw(b"?"),
    "elsewhere": redirected("http://x.invalid/"),
    "cut": cut(50),
}


@fresh_and_resumed
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_c11_first_dead_second_lying_third_good(
    dead: str, server: Hostile, second: Hostile, lie: Fault, start: int
) -> None:
    server.always(lie)
    world = World()
    source = opened(dead, server.url, second.url, world=world)
    length = 100_000
    for _ in range(2):
        assert fetched(source, PACK, DATA, start=start, length=length) == DATA[start : start + length]
    assert world.waited == []
    assert len(server.asked) == 1, "who was wrong once is not asked again as long as somebody else can be"
    assert source.name == second.url


@fresh_and_resumed
def test_c11_who_does_not_have_a_file_may_have_others(server: Hostile, second: Hostile, start: int) -> None:
    server.always(says(404), paths=PACK)
    source = opened(server.url, second.url)
    assert fetched(source, PACK, DATA, start=start) == DATA[start:]
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]
    assert [asked.path for asked in server.asked] == [PACK, TIMESTAMP]


@fresh_and_resumed
def test_c11_a_stream_goes_on_at_the_next_mirror_where_it_was(server: Hostile, second: Hostile, start: int) -> None:
    server.always(cut(77_000, reset=False))
    assert fetched(opened(server.url, second.url), PACK, DATA, start=start) == DATA[start:]
    assert bodies(second) == [f"bytes={start + 77_000}-{len(DATA) - 1}"]


def test_c11_wrong_bytes_of_one_mirror_are_right_at_another_once_it_is_blamed(server: Hostile, second: Hostile) -> None:
    server.always(flipped(4_000))
    source = opened(server.url, second.url)
    assert fetched(source, PACK, DATA) != DATA
    source.blame()
    assert fetched(source, PACK, DATA) == DATA
    assert source.name == second.url


def test_c11_a_folder_can_stand_in_for_a_server(dead: str, tmp_path: Path) -> None:
    path = tmp_path / PACK
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert fetched(opened(dead, str(tmp_path)), PACK, DATA) == DATA


def test_a_resting_mirror_does_not_keep_the_end_of_a_search_waiting(server: Hostile, second: Hostile) -> None:
    server.always(says(503))
    world = World()
    source = opened(server.url, second.url, world=world)
    for _ in range(3):
        with pytest.raises(NotInRepository):
            source.read("metadata/9.root.json", limit=100)
    assert world.waited == []
    assert (len(server.asked), len(second.asked)) == (1, 3)


def test_a_rest_is_longer_each_time_until_the_mirror_answers(server: Hostile, second: Hostile) -> None:
    world = World()
    source = opened(server.url, second.url, world=world)
    for fault, asked in (
        (says(500), True),
        (says(500), True),
        (None, False),
        (None, True),
        (says(500), True),
        (None, True),
    ):
        before = len(server.asked)
        if asked:
            server.then(fault)
        source.read(TIMESTAMP, limit=100)
        assert (len(server.asked) > before) == asked
        world.now += 16


def test_a_mirror_that_was_dead_is_asked_again_later(server: Hostile, second: Hostile) -> None:
    server.then(says(503))
    world = World()
    source = opened(server.url, second.url, world=world)
    source.read(TIMESTAMP, limit=100)
    source.read(TIMESTAMP, limit=100)
    assert len(server.asked) == 1
    world.now += 20
    source.read(TIMESTAMP, limit=100)
    assert (len(server.asked), len(second.asked)) == (2, 2)
