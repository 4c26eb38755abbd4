"""C9: a server that sends a byte now and then is given up, in the head of its answer as well as in the body."""

import io
import random
from collections.abc import Iterator

import pytest

from device_agent.sync.records import LinkSettings
from device_agent.sync.transport.pace import WINDOW_S, Pace, Paced
from edgekit.errors import Unreachable
from tests.device_agent.sync.transport.opening import fetched, opened
from tests.hostile_http import Asked, Fault, Hostile, Reply, chunked, endless, honestly, no_ranges, raw
from tests.worlds import Crawling, World


class Slow(io.RawIOBase):
    """Each read takes some seconds and brings some bytes."""

    def __init__(self, world: World, reads: Iterator[tuple[float, int]]) -> None:
        self._world = world
        self._reads = reads

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        seconds, count = next(self._reads, (0.0, 0))
        self._world.now += seconds
        buffer[:count] = b"\0" * count
        return count


def read_all(*reads: tuple[float, int], least: float = 1024.0) -> float:
    """Seconds until the end, or until Unreachable was raised (negative)."""
    world = World()
    begun = world.now
    pace = Pace(least_bytes_per_s=least, ticks=world.clock)
    stream = Paced(Slow(world, iter(reads)), pace)
    try:
        while piece := stream.read(1 << 16):
            pace.came(len(piece))
    except Unreachable:
        return begun - world.now
    return world.now - begun


SLOW = {
    "a byte in 29 s": [(29.0, 1)] * 10,
    "a byte in 29.9 s": [(29.9, 1)] * 10,
    "a byte a second": [(1.0, 1)] * 200,
    "just below": [(1.0, 1023)] * 200,
    "fast before": [*[(1.0, 50_000)] * 45, *[(29.0, 1)] * 10],
    "fast for minutes": [*[(0.5, 50_000)] * 999, *[(29.0, 1)] * 10],
    "a burst at once": [(0.0, 60_000), *[(29.0, 1)] * 10],
}


@pytest.mark.parametrize("reads", SLOW.values(), ids=SLOW.keys())
def test_c09_what_drips_is_given_up_within_ninety_seconds(reads: list[tuple[float, int]]) -> None:
    fast = sum(seconds for seconds, count in reads if count > 1024)
    ended = read_all(*reads)
    assert ended < 0
    assert WINDOW_S <= -ended <= fast + 90


FAST_ENOUGH = {
    "just enough": [(1.0, 1024)] * 500,
    "a pause of 29 s between bursts": [(0.1, 60_000), (29.0, 60_000)] * 50,
    "a slow beginning": [(30.0, 1), (29.9, 1), (0.05, 100_000), *[(1.0, 9_000)] * 100],
    "short": [(29.0, 1), (29.0, 1)],
}


@pytest.mark.parametrize("reads", FAST_ENOUGH.values(), ids=FAST_ENOUGH.keys())
def test_what_is_fast_enough_is_left_alone(reads: list[tuple[float, int]]) -> None:
    assert read_all(*reads) == pytest.approx(sum(seconds for seconds, _ in reads))


def test_memory_of_the_window_does_not_grow_with_the_file() -> None:
    world = World()
    pace = Pace(least_bytes_per_s=1.0, ticks=world.clock)
    slow = Slow(world, iter([(0.001, 1000)] * 100_000))
    buffer = bytearray(1 << 16)
    while count := pace.read(slow, buffer):
        pace.came(count)
    assert len(pace._steps) <= WINDOW_S + 1


def test_only_waiting_counts() -> None:
    world = World()
    pace = Pace(least_bytes_per_s=1024.0, ticks=world.clock)
    slow = Slow(world, iter([(0.1, 1000)] * 100))
    while pace.read(slow, bytearray(2000)):
        world.now += 100.0  # a slow disk


def test_a_new_request_begins_anew() -> None:
    world = World()
    pace = Pace(least_bytes_per_s=1024.0, ticks=world.clock)
    for _ in range(10):
        pace.begin()
        assert pace.read(Slow(world, iter([(29.0, 5)])), bytearray(10)) == 5


# --- over real connections --------------------------------------------------------------------


DATA = random.Random(1).randbytes(3_000_000)

HEADS: dict[str, Fault] = {
    "head": raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "line": raw(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "status": raw(b"", b"\r"),
}


@pytest.mark.parametrize("fault", HEADS.values(), ids=HEADS.keys())
def test_c09_no_head_of_an_answer_may_drip(fault: Fault) -> None:
    with Hostile({"packs/x": DATA}) as server:
        server.always(fault)
        source = opened(server.url, world=Crawling(step_s=61.0))
        with pytest.raises(Unreachable, match=f"{server.url}.* too slow"):
            fetched(source, "packs/x", DATA)


@pytest.mark.parametrize("start", [0, 100_000], ids=["fresh", "resumed"])
@pytest.mark.parametrize(
    "fault", [honestly(), no_ranges(), endless(b"\0"), chunked(1)], ids=["plain", "200", "endless", "chunks"]
)
def test_c09_no_body_may_drip_and_another_mirror_goes_on(start: int, fault: Fault) -> None:
    world = Crawling()

    def quick_again(_asked: Asked, reply: Reply, _file: bytes | None) -> Reply:
        world.step_s = 0.0
        return reply

    with Hostile({"packs/x": DATA}) as server, Hostile({"packs/x": DATA}) as good:
        server.always(fault)
        good.always(quick_again)
        source = opened(server.url, good.url, world=world, settings=LinkSettings(least_bytes_per_s=1 << 20))
        stream = source.stream("packs/x", start=start, length=len(DATA) - start, size=len(DATA))
        got = next(stream)
        world.step_s = 61.0
        assert got + b"".join(stream) == DATA[start:]
        assert len(server.asked) == len(good.asked) == 1


# --- what comes fast and without end ----------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WITHOUT_END: dict[str, Fault] = {
    "100 Continue": raw(b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000),
    "lines after the last chunk": raw(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000),
    "words beside chunks": raw(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\na\r\n"),
    "fields of the head": raw(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 60_000 + b"\r\n"),
    "a body without a length": endless(),
}


@pytest.mark.parametrize("fault", WITHOUT_END.values(), ids=WITHOUT_END.keys())
def test_a11_what_comes_without_end_is_given_up_and_another_mirror_goes_on(fault: Fault) -> None:
    with Hostile({"packs/x": DATA}) as server, Hostile({"packs/x": DATA}) as good:
        server.always(fault)
        source = opened(server.url, good.url)
        assert source.read("packs/x", limit=len(DATA)) == DATA
        assert fetched(source, "packs/x", DATA, start=100_000) == DATA[100_000:]


@pytest.mark.parametrize("fault", list(WITHOUT_END.values())[:4], ids=list(WITHOUT_END)[:4])
def test_a11_what_comes_without_end_is_said(fault: Fault) -> None:
    with Hostile({"packs/x": DATA}) as server:
        server.always(fault)
        with pytest.raises(Unreachable, match=server.url):
            opened(server.url).read("packs/x", limit=100)


def test_small_chunks_and_what_is_read_ahead_are_no_offence() -> None:
    data = DATA[:100_000]
    with Hostile({"packs/x": data}) as server:
        server.always(chunked(1))
        assert opened(server.url).read("packs/x", limit=len(data)) == data
