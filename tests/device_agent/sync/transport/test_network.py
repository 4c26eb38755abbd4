"""Bad networks, C1 to C8 of the study: each from the beginning of a file, and resumed in its middle."""

import contextlib
import random
from email.utils import formatdate

import pytest

from device_agent.sync.transport.mirrors import ROUNDS
from device_agent.sync.transport.web import MOST_REDIRECTS, MOST_REST_S, USER_AGENT
from edgekit.errors import CorruptRelease, NotInRepository, SyncError, Unreachable
from tests.device_agent.sync.transport.opening import (
    DATA,
    FILES,
    PACK,
    TIMESTAMP,
    begin_of,
    bodies,
    fetched,
    fresh_and_resumed,
    opened,
)
from tests.hostile_http import (
    Asked,
    Fault,
    Hostile,
    Reply,
    chunked,
    content_range,
    cut,
    endless,
    gzipped,
    no_ranges,
    over_long,
    portal,
    raw,
    redirected,
    says,
)
from tests.worlds import World


def test_an_honest_server_is_asked_politely(server: Hostile) -> None:
    source = opened(server.url)
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]
    assert fetched(source, PACK, DATA, start=10, length=20) == DATA[10:30]
    first, second = server.asked
    assert first.headers["user-agent"] == second.headers["user-agent"] == USER_AGENT
    assert first.headers["accept-encoding"] == second.headers["accept-encoding"] == "identity"
    assert "no-cache" in first.headers["cache-control"]
    assert "no-transform" in second.headers["cache-control"]
    assert (first.range, second.range) == (None, "bytes=10-29")
    assert server.connections == 1


def test_a_whole_file_is_no_range(server: Hostile) -> None:
    assert fetched(opened(server.url), PACK, DATA) == DATA
    assert bodies(server) == [None]


# --- C1: cuts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 17_457], ids=["fresh", "resumed"])
@pytest.mark.parametrize("seed", range(100))
def test_c01_cuts_at_any_byte_converge_and_no_byte_is_asked_for_twice(start: int, seed: int) -> None:
    chance = random.Random(seed)
    most = chance.choice([1_000, 5_000, 20_000, 60_000])
    data, wrong = DATA[:40_000], []
    got = bytearray(data[:start])

    def somewhere(asked: Asked, reply: Reply, file: bytes | None) -> Reply:
        if begin_of(asked) != len(got):
            wrong.append(asked)
        return cut(chance.randrange(most), reset=chance.random() < 0.3)(asked, reply, file)

    with Hostile({PACK: data}) as server:
        server.always(somewhere)
        source = opened(server.url)
        while len(got) < len(data):
            with contextlib.suppress(Unreachable):  # the link comes back later
                for piece in source.stream(PACK, start=len(got), length=len(data) - len(got), size=len(data)):
                    got += piece
    assert got == data
    assert wrong == []


@fresh_and_resumed
def test_c01_after_a_cut_it_goes_on_at_the_next_byte(server: Hostile, start: int) -> None:
    server.then(cut(70_000), cut(50_000), None)
    assert fetched(opened(server.url), PACK, DATA, start=start) == DATA[start:]
    assert [begin_of(asked) for asked in server.asked] == [start, start + 70_000, start + 120_000]


def test_c01_as_long_as_there_is_progress_it_goes_on(server: Hostile) -> None:
    server.always(cut(20_000))
    assert fetched(opened(server.url), PACK, DATA) == DATA
    assert len(server.asked) > 2 * ROUNDS


def test_c01_a_server_that_gives_a_byte_and_hangs_up_is_given_up(server: Hostile) -> None:
    server.always(cut(1))
    with pytest.raises(Unreachable, match="the connection broke"):
        fetched(opened(server.url), PACK, DATA)
    assert len(server.asked) == ROUNDS


# --- C2 to C6: answers that are none ----------------------------------------------------------


@fresh_and_resumed
def test_c02_a_server_without_ranges_is_read_up_to_the_place(server: Hostile, start: int) -> None:
    server.always(no_ranges())
    assert fetched(opened(server.url), PACK, DATA, start=start, length=999) == DATA[start : start + 999]


def test_c02_without_ranges_later_parts_come_out_of_the_same_answer(server: Hostile) -> None:
    server.always(no_ranges())
    source = opened(server.url)
    for start, length in ((100, 50), (150, 1), (70_000, 100_000), (200_000, 100_000)):
        assert fetched(source, PACK, DATA, start=start, length=length) == DATA[start : start + length]
    assert len(server.asked) == 1
    assert fetched(source, PACK, DATA, start=5, length=5) == DATA[5:10]
    assert fetched(source, PACK, DATA, start=2, length=5) == DATA[2:7], "what has passed is asked for again"
    assert len(server.asked) == 3


@fresh_and_resumed
def test_c02_without_ranges_and_with_cuts_it_converges(server: Hostile, start: int) -> None:
    server.then(*[lambda asked, reply, file: cut(200_000)(asked, no_ranges()(asked, reply, file), file)] * 3)
    server.always(no_ranges())
    assert fetched(opened(server.url), PACK, DATA, start=start) == DATA[start:]


def test_c02_a_stream_that_is_left_in_the_middle_does_no_harm(server: Hostile) -> None:
    server.always(no_ranges())
    source = opened(server.url)
    stream = source.stream(PACK, start=10, length=100_000, size=len(DATA))
    next(stream)
    del stream
    assert fetched(source, PACK, DATA, start=10, length=10) == DATA[10:20]
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]


WRONG_RANGES = {
    "missing": None,
    "one late": "bytes {a1}-{b}/{n}",
    "one short": "bytes {a}-{b0}/{n}",
    "another size": "bytes {a}-{b}/{n1}",
    "from the beginning": "bytes 0-998/{n}",
    "another unit": "items {a}-{b}/{n}",
    "several": "bytes {a}-{b}/{n}, bytes 0-1/{n}",
    "negative": "bytes -{a}-{b}/{n}",
    "words": "all of it",
    "huge": "bytes {a}-99999999999999999999999999/{n}",
    "other digits": "bytes {a}-\u0665/{n}",
}


@pytest.mark.parametrize("said", WRONG_RANGES.values(), ids=WRONG_RANGES.keys())
def test_c03_a_206_that_is_another_part_is_refused(server: Hostile, said: str | None) -> None:
    a, b, n = 5_000, 5_998, len(DATA)
    text = said and said.format(a=a, a1=a + 1, b=b, b0=b - 1, n=n, n1=n + 1).encode("utf-8").decode("latin-1")
    server.always(content_range(text))
    with pytest.raises(CorruptRelease, match="were asked for"):
        fetched(opened(server.url), PACK, DATA, start=a, length=999)


def test_c03_a_206_that_does_not_know_the_size_is_taken(server: Hostile) -> None:
    server.always(content_range("bytes 5000-5998/*"))
    assert fetched(opened(server.url), PACK, DATA, start=5_000, length=999) == DATA[5_000:5_999]


def test_c03_a_206_that_nobody_asked_for_is_refused(server: Hostile) -> None:
    server.always(says(206, {"Content-Range": f"bytes 0-1/{len(DATA)}"}))
    with pytest.raises(Unreachable, match="206"):
        fetched(opened(server.url), PACK, DATA)


def test_c04_a_416_says_that_the_file_is_another(server: Hostile) -> None:
    server.always(says(416))
    with pytest.raises(CorruptRelease, match="shorter than what was signed"):
        fetched(opened(server.url), PACK, DATA, start=9)


@fresh_and_resumed
def test_c05_what_a_proxy_compresses_is_not_taken_for_the_file(server: Hostile, start: int) -> None:
    server.always(gzipped())
    source = opened(server.url)
    with pytest.raises(CorruptRelease, match="'gzip'"):
        fetched(source, PACK, DATA, start=start)
    with pytest.raises(CorruptRelease, match="'gzip'"):
        source.read(TIMESTAMP, limit=100)


@fresh_and_resumed
def test_c06_a_login_page_is_no_release(server: Hostile, start: int) -> None:
    server.always(portal())
    source = opened(server.url)
    with pytest.raises(Unreachable, match="log in"):
        fetched(source, PACK, DATA, start=start)
    with pytest.raises(Unreachable, match="log in"):
        source.read(TIMESTAMP, limit=1000)
    server.mend()
    assert fetched(source, PACK, DATA, start=start) == DATA[start:]


@fresh_and_resumed
@pytest.mark.parametrize("wrong", [DATA + b"\0", DATA[:-1], b""], ids=["longer", "shorter", "empty"])
def test_a_file_of_another_length_is_another_file(server: Hostile, start: int, wrong: bytes) -> None:
    server.always(no_ranges())
    server.files = {PACK: wrong}
    with pytest.raises(CorruptRelease, match="were signed"):
        fetched(opened(server.url), PACK, DATA, start=start)


@pytest.mark.parametrize("fault", [over_long(5_000), chunked(), endless()], ids=["over-long", "chunked", "endless"])
def test_what_comes_after_the_end_of_a_part_is_never_read(server: Hostile, fault: Fault) -> None:
    server.always(fault)
    source = opened(server.url)
    assert fetched(source, PACK, DATA, start=9, length=50_000) == DATA[9:50_009]
    assert fetched(source, PACK, DATA, start=9, length=50_000) == DATA[9:50_009], "nothing is left in the connection"


@pytest.mark.parametrize("fault", [chunked(), endless()], ids=["chunked", "endless"])
def test_what_comes_after_the_end_of_a_file_is_never_read(server: Hostile, fault: Fault) -> None:
    server.always(fault)
    assert fetched(opened(server.url), PACK, DATA) == DATA


@pytest.mark.parametrize("fault", [endless(), over_long(90), chunked(1)], ids=["endless", "long", "chunked"])
def test_a_small_file_stays_small(server: Hostile, fault: Fault) -> None:
    server.always(fault)
    with pytest.raises(CorruptRelease, match=r"13 bytes|may have 13|longer than 13"):
        opened(server.url).read(TIMESTAMP, limit=13)


def test_a_file_that_is_said_to_be_too_large_is_not_even_begun(server: Hostile) -> None:
    server.always(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"))
    with pytest.raises(CorruptRelease, match="has 99,999,999 bytes"):
        opened(server.url).read(TIMESTAMP, limit=13)


def test_a_small_file_in_chunks_is_whole(server: Hostile) -> None:
    server.always(chunked(3))
    assert opened(server.url).read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]


NOT_HTTP: dict[str, Fault] = {
    "nothing": raw(b""),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a status that is none": raw(b"HTTP/1.1 abc\r\n\r\n"),
    "a head without end": raw(b"HTTP/1.1 200 OK\r\n", b"X-More: again\r\n"),
    "a line without end": raw(b"HTTP/1.1 200 OK\r\nX-More: ", b"a" * 1000),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello"),
    "a length that is none": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
    "chunks that are none": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}


@pytest.mark.parametrize("fault", NOT_HTTP.values(), ids=NOT_HTTP.keys())
def test_what_is_no_answer_at_all_is_one_clear_error(server: Hostile, fault: Fault) -> None:
    server.always(fault)
    source = opened(server.url)
    with pytest.raises(SyncError):
        fetched(source, PACK, DATA)
    with pytest.raises(SyncError):
        fetched(source, PACK, DATA, start=7)


# --- C7: redirects ----------------------------------------------------------------------------


@fresh_and_resumed
def test_c07_a_redirect_on_the_same_host_is_followed_with_its_range(server: Hostile, start: int) -> None:
    server.then(redirected(f"/{PACK}", 307))
    assert fetched(opened(f"{server.url}/old"), PACK, DATA, start=start) == DATA[start:]
    assert server.asked[0].path == f"old/{PACK}"
    assert server.asked[0].range == server.asked[1].range


def test_c07_a_redirect_loop_ends(server: Hostile) -> None:
    server.always(redirected("/{path}"))
    with pytest.raises(Unreachable, match="without end"):
        opened(server.url).read(TIMESTAMP, limit=100)
    assert len(server.asked) == (MOST_REDIRECTS + 1) * ROUNDS


@pytest.mark.parametrize("to", ["http://elsewhere.invalid/x", "//elsewhere.invalid/x"])
def test_c07_no_redirect_leads_to_a_stranger(server: Hostile, to: str) -> None:
    server.always(redirected(to))
    with pytest.raises(Unreachable, match=r"elsewhere\.invalid, which is none of its repositories"):
        opened(server.url).read(TIMESTAMP, limit=100)


@pytest.mark.parametrize("to", ["", "ftp://127.0.0.1/x", "http://[", "javascript:alert(1)"])
def test_c07_a_redirect_to_nowhere_is_an_error(server: Hostile, to: str) -> None:
    server.always(redirected(to))
    with pytest.raises(Unreachable):
        opened(server.url).read(TIMESTAMP, limit=100)


def test_c07_the_password_stays_with_the_server_that_it_is_for(server: Hostile, second: Hostile) -> None:
    server.always(redirected(f"{second.url}/{{path}}"))
    source = opened(server.url.replace("//", "//me:s%65cret@"))
    assert source.read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]
    assert server.asked[0].headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert "authorization" not in second.asked[0].headers
    assert "cret" not in source.name


# --- C8: statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 410])
def test_c08_what_is_not_there_is_said_at_once(server: Hostile, status: int) -> None:
    server.always(says(status))
    world = World()
    source = opened(server.url, world=world)
    with pytest.raises(NotInRepository, match=f"{TIMESTAMP}.*{status}"):
        source.read(TIMESTAMP, limit=100)
    with pytest.raises(NotInRepository):
        fetched(source, PACK, DATA)
    assert world.waited == []
    assert len(server.asked) == 2


@fresh_and_resumed
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_c08_what_passes_is_tried_again(server: Hostile, status: int, start: int) -> None:
    server.then(says(status), says(status), None)
    world = World()
    assert fetched(opened(server.url, world=world), PACK, DATA, start=start) == DATA[start:]
    assert world.waited == [1.0, 2.0]


def test_c08_a_pause_grows_and_ends(server: Hostile) -> None:
    server.always(says(500))
    world = World()
    with pytest.raises(Unreachable, match="status 500"):
        fetched(opened(server.url, world=world), PACK, DATA)
    assert world.waited == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ("7", 7.0),
        ("0", 1.0),
        ("99999999999999999999", MOST_REST_S),
        (formatdate(World().now + 30, usegmt=True), 30.0),
        (formatdate(World().now - 30, usegmt=True), 1.0),
        (formatdate(World().now + 1e8, usegmt=True), MOST_REST_S),
        ("soon", 1.0),
        ("-5", 1.0),
        ("\u0665", 1.0),
        ("Fri, 31 Dec 1999 23:99999999999:59 GMT", 1.0),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", 1.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_c08_retry_after_is_honoured_within_reason(server: Hostile, status: int, said: str, waits: float) -> None:
    server.then(says(status, {"Retry-After": said.encode().decode("latin-1")}), None)
    world = World()
    assert opened(server.url, world=world).read(TIMESTAMP, limit=100) == FILES[TIMESTAMP]
    assert world.waited == [waits]


def test_c08_another_mirror_need_not_wait(server: Hostile, second: Hostile) -> None:
    server.always(says(503, {"Retry-After": "60"}))
    world = World()
    source = opened(server.url, second.url, world=world)
    assert fetched(source, PACK, DATA) == DATA
    assert fetched(source, PACK, DATA) == DATA
    assert world.waited == []
    assert len(server.asked) == 1


def test_who_wants_a_password_is_not_taken_for_a_repository_without_the_file(server: Hostile) -> None:
    server.always(says(401, {"WWW-Authenticate": "Basic"}))
    with pytest.raises(Unreachable, match="who asks") as caught:
        opened(server.url).read(TIMESTAMP, limit=100)
    assert not isinstance(caught.value, NotInRepository)
