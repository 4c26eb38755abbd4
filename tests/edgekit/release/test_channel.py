"""Who gets what: the rule that each device applies for itself."""

import hashlib
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CorruptRelease, UnsupportedRelease
from edgekit.release.channel import (
    SLICES,
    Channel,
    Decision,
    Device,
    Labels,
    RampStep,
    decide,
    matches,
    parse,
    percent_at,
    slice_of,
)

NOW = 1_800_000_000.0
DEVICES = [hashlib.sha256(f"device {i}".encode()).hexdigest()[:32] for i in range(10_000)]
SHARES = (1, 10, 50, 100)


def channel(**changed: object) -> Channel:
    base = Channel(format=1, name="stable", version=3, release="tiny-2.0", salt="tiny-2.0", previous="tiny-1.0")
    return msgspec.structs.replace(base, **changed)


def share(percent: float, *, salt: str = "s") -> set[str]:
    ramp = (RampStep(0, percent),)
    found = channel(salt=salt, ramp=ramp)
    return {
        id_ for id_ in DEVICES if decide(found, Device(id=id_, labels={}), now=NOW, has_one=True).reason == "offered"
    }


# --- F5 ---


@pytest.mark.parametrize("percent", SHARES)
def test_f05_the_share_of_ten_thousand_devices_is_what_was_asked_for(percent: int) -> None:
    assert abs(len(share(percent)) - percent * 100) <= 100


def test_f05_a_wider_stage_with_the_same_salt_holds_everybody_of_the_narrower_one() -> None:
    stages = [share(percent) for percent in (0, *SHARES)]
    assert stages[0] == set()
    assert stages[-1] == set(DEVICES)
    assert all(narrow < wide for narrow, wide in itertools.pairwise(stages))


def test_f05_another_salt_begins_with_other_devices() -> None:
    both = share(10) & share(10, salt="another")
    assert 50 <= len(both) <= 200  # a tenth of a tenth


def test_f05_a_slice_is_the_whole_digest_big_endian_so_that_every_implementation_agrees() -> None:
    digest = hashlib.sha256(b"salt|device").digest()
    number = 0
    for byte in digest:
        number = number * 256 + byte
    assert slice_of("salt", "device") == number % SLICES


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_f05_no_device_leaves_when_a_stage_widens(salt: str, device: str, a: float, b: float) -> None:
    narrow, wide = sorted((a, b))
    asks = Device(id=device, labels={})
    reasons = [
        decide(channel(salt=salt, ramp=(RampStep(0, percent),)), asks, now=NOW, has_one=True).reason
        for percent in (narrow, wide)
    ]
    assert reasons != ["offered", "not yet"]


@pytest.mark.parametrize(("percent", "offered"), [(0.01, 1), (0.07, 7), (0.29, 29), (1.1, 110), (99.99, 9999)])
def test_f05_hundredths_of_a_percent_are_whole_slices(percent: float, offered: int) -> None:
    """0.07 * 100 is 7.000000000000001 in binary: a rounding error must not let one more slice in, or one fewer."""
    ramp = (RampStep(0, percent),)
    assert sum(decide(channel(ramp=ramp), _in_slice(i), now=NOW, has_one=True).reason == "offered" for i in EDGES) == (
        sum(i < offered for i in EDGES)
    )


EDGES = sorted({edge + d for edge in (1, 7, 29, 110, 9999) for d in (-1, 0)})


def _in_slice(wanted: int) -> Device:
    return Device(id=_BY_SLICE[wanted], labels={})


_BY_SLICE: dict[int, str] = {}
for _number in range(400_000):
    if len(_BY_SLICE) == len(EDGES):
        break
    _slice = slice_of("tiny-2.0", str(_number))
    if _slice in EDGES:
        _BY_SLICE.setdefault(_slice, str(_number))


# --- time ---


RAMP = (RampStep(100, 5), RampStep(200, 50), RampStep(300, 100))


@pytest.mark.parametrize(
    ("ramp", "now", "percent"),
    [
        ((), 0, 100),
        (RAMP, 99, 0),
        (RAMP, 100, 5),
        (RAMP, 199.9, 5),
        (RAMP, 200, 50),
        (RAMP, 1e12, 100),
        ((RampStep(0, 50), RampStep(10, 20)), 20, 50),  # nobody is sent back by a narrower step
    ],
)
def test_the_ramp_says_how_many_from_when(ramp: tuple[RampStep, ...], now: float, percent: float) -> None:
    assert percent_at(ramp, now) == percent


# --- labels ---


@pytest.mark.parametrize(
    ("allow", "deny", "labels", "is_for"),
    [
        ({}, {}, {}, True),
        ({"site": ("lyon",)}, {}, {"site": "lyon"}, True),
        ({"site": ("lyon", "oslo")}, {}, {"site": "oslo"}, True),
        ({"site": ("lyon",)}, {}, {"site": "oslo"}, False),
        ({"site": ("lyon",)}, {}, {}, False),
        ({"site": ("lyon",), "ring": ("1",)}, {}, {"site": "lyon"}, False),
        ({"site": ("lyon",), "ring": ("1",)}, {}, {"site": "lyon", "ring": "1"}, True),
        ({}, {"site": ("lyon",)}, {"site": "lyon"}, False),
        ({}, {"site": ("lyon",)}, {"site": "oslo"}, True),
        ({}, {"site": ("lyon",)}, {}, True),
        ({"site": ("lyon",)}, {"ring": ("9",)}, {"site": "lyon", "ring": "9"}, False),
        ({"site": ()}, {}, {"site": "lyon"}, False),
    ],
)
def test_labels(
    allow: dict[str, tuple[str, ...]], deny: dict[str, tuple[str, ...]], labels: dict[str, str], is_for: bool
) -> None:
    assert matches(Labels(allow=allow, deny=deny), Device(id="d", labels=labels)) is is_for


# --- the rule ---


@pytest.mark.parametrize(
    ("changed", "has_one", "expected"),
    [
        ({}, True, Decision("tiny-2.0", "offered")),
        ({"ramp": (RampStep(0, 0),)}, True, Decision(None, "not yet")),
        ({"ramp": (RampStep(0, 0),)}, False, Decision("tiny-1.0", "first")),
        ({"ramp": (RampStep(0, 0),), "previous": None}, False, Decision(None, "not yet")),
        ({"pause": True}, False, Decision(None, "paused")),
        ({"pause": True, "abort_to": "tiny-1.0"}, True, Decision("tiny-1.0", "aborted")),
        ({"labels": Labels(allow={"a": ("b",)}), "abort_to": "x-1"}, True, Decision(None, "not for this device")),
        ({"abort_to": "tiny-1.0", "ramp": (RampStep(0, 0),)}, False, Decision("tiny-1.0", "aborted")),
    ],
)
def test_the_rule(changed: dict[str, object], has_one: bool, expected: Decision) -> None:
    assert decide(channel(**changed), Device(id="d", labels={}), now=NOW, has_one=has_one) == expected


# --- the file ---


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)
steps = st.lists(st.builds(RampStep, st.integers(0, 1 << 39), st.floats(0, 100)), max_size=5)
channels = st.builds(
    Channel,
    format=st.just(1),
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    version=st.integers(1, 1 << 50),
    release=names,
    salt=st.text(min_size=1, max_size=20),
    previous=st.none() | names,
    ramp=steps.map(lambda found: tuple(sorted(found, key=lambda step: step.not_before))),
    labels=st.builds(
        Labels,
        allow=st.dictionaries(names, st.lists(names, max_size=2).map(tuple), max_size=2),
        deny=st.dictionaries(names, st.lists(names, max_size=2).map(tuple), max_size=2),
    ),
    pause=st.booleans(),
    abort_to=st.none() | names,
    freshness=st.sampled_from(("strict", "warn")),
    note=st.text(max_size=50),
)


@given(channels)
def test_a_file_is_read_as_it_was_written(made: Channel) -> None:
    assert parse(made.to_bytes()) == made
    assert parse(made.to_bytes()).to_bytes() == made.to_bytes()


@given(st.binary(max_size=400) | channels.map(Channel.to_bytes).flatmap(lambda raw: st.just(raw[: len(raw) // 2])))
def test_h_no_bytes_do_worse_than_one_clear_error(raw: bytes) -> None:
    try:
        parse(raw)
    except CorruptRelease as error:
        assert len(str(error)) < 1200


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 0},
        {"name": "../x"},
        {"name": "Stable"},
        {"release": "a/b"},
        {"release": ""},
        {"salt": ""},
        {"version": 0},
        {"ramp": [[0, 5]]},
        {"ramp": [{"not_before": 0, "percent": 101}]},
        {"ramp": [{"not_before": -1, "percent": 1}]},
        {"ramp": [{"not_before": 200, "percent": 1}, {"not_before": 100, "percent": 2}]},
        {"ramp": [{"not_before": 0, "percent": 1}] * 1001},
        {"freshness": "never"},
        {"another": 1},
        {"pause": "yes"},
        {"note": "x" * 2001},
    ],
    ids=str,
)
def test_what_cannot_be_a_channel(changed: dict[str, object]) -> None:
    facts = msgspec.json.decode(channel().to_bytes()) | changed
    with pytest.raises(CorruptRelease):
        parse(msgspec.json.encode(facts))


def test_a_newer_format_says_that_the_agent_is_too_old() -> None:
    with pytest.raises(UnsupportedRelease, match="format 2"):
        parse(b'{"format": 2, "unheard": true}')
