"""What the demos do with an agent: its address, its port, and the stream of an answer."""

import socket
from collections.abc import Iterator

import demo_agent
import pytest


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"data: {}\n", b"\n", b'data: {"a": 1}\n', b"\n", b"data: [DONE]\n"], [{}, {"a": 1}]),
        ([b": ping\n", b"\n", b"data:{}\n"], [{}]),
        ([b"data: [DONE]\n", b"data: {}\n"], []),
        ([], []),
    ],
)
def test_events_are_the_data_lines_up_to_done(lines: list[bytes], expected: list[object]) -> None:
    assert list(demo_agent.events(lines)) == expected


@pytest.mark.parametrize("lines", [['{"url": "x"}\n'], ["{\n", '  "url": "x"\n', "}\n", "more"]])
def test_the_address_is_read_from_one_line_or_many(lines: list[str]) -> None:
    assert demo_agent.ready_url(lines) == "x"


def test_no_address_is_an_error() -> None:
    with pytest.raises(demo_agent.DemoError, match="did not start"):
        demo_agent.ready_url(["", "not json"])


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_left_alone(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_agent, "PORT", taken)
    assert demo_agent.free_port() == 0


def test_a_free_port_is_used(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        free = other.getsockname()[1]
    assert free != taken
    monkeypatch.setattr(demo_agent, "PORT", free)
    assert demo_agent.free_port() == free
