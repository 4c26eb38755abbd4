"""A device's report: authenticated, bounded, and believed only if that device made it."""

import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.release.reports import (
    MAX_REPORT_BYTES,
    Enrolment,
    Envelope,
    Machine,
    Report,
    ReportedLine,
    ReportedOutcome,
    ReportedRefusal,
    check,
    device_problem,
    parse_enrolment,
    sealed,
    unsealed,
)

SECRET = bytes(range(32))
SECRETS = {"dev-1": SECRET, "dev-2": b"2" * 32}
MACHINE = Machine(system="Linux", machine="aarch64", processor="Cortex-A76", cores=4, memory_bytes=8 << 30)


def report(**changed: object) -> Report:
    line = ReportedLine(channel="stable", active="tiny-2.0", previous="tiny-1.0")
    base = Report(format=1, device="dev-1", counter=7, at=1_800_000_000, agent="0.5", machine=MACHINE, lines=(line,))
    return msgspec.structs.replace(base, **changed)


def enveloped(text: str, secret: bytes = SECRET) -> bytes:
    mac = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    return msgspec.json.encode(Envelope(text, mac))


def text_of(**changed: object) -> str:
    facts = msgspec.json.decode(msgspec.json.encode(report())) | changed
    return msgspec.json.encode(facts).decode()


def test_a_report_is_read_as_it_was_made() -> None:
    assert check(sealed(report(), SECRET), SECRETS) == report()


def test_the_mac_is_hmac_sha256_of_the_text_as_it_stands() -> None:
    envelope = msgspec.json.decode(sealed(report(), SECRET))
    assert envelope["mac"] == hmac.new(SECRET, envelope["report"].encode(), hashlib.sha256).hexdigest()


def _flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@given(st.integers(0, len(sealed(report(), SECRET)) - 2))
def test_f06_no_flipped_bit_is_believed(at: int) -> None:
    assert not isinstance(check(_flip(sealed(report(), SECRET), at), SECRETS), Report)


@pytest.mark.parametrize(
    ("raw", "flaw"),
    [
        (sealed(report(), b"x" * 32), "forged"),
        (sealed(report(), SECRETS["dev-2"]), "forged"),
        (sealed(report(device="dev-9"), SECRET), "unknown"),
        (msgspec.json.encode({"report": text_of(), "mac": ""}), "forged"),
        (msgspec.json.encode({"report": text_of(), "mac": "é" * 32}), "forged"),
        (msgspec.json.encode({"report": text_of(), "mac": "0" * 65}), "damaged"),
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"\xff\xfe", "damaged"),
        (enveloped("{}"), "damaged"),
        (enveloped("[" * 10_000), "damaged"),
        (enveloped(text_of(format=2)), "damaged"),
        (enveloped(text_of(counter=0)), "damaged"),
        (enveloped(text_of(counter=1 << 53)), "damaged"),
        (enveloped(text_of(device="../../x")), "damaged"),
        (enveloped(text_of(device="con")), "damaged"),
        (enveloped(text_of(have=["../x"])), "damaged"),
        (enveloped(text_of(have=["a"] * 1001)), "damaged"),
        (enveloped(text_of(another=1)), "damaged"),
        (enveloped(text_of(labels={"a": "x" * 101})), "damaged"),
        (enveloped(text_of()) + b" " * MAX_REPORT_BYTES, "damaged"),
    ],
)
def test_f06_what_is_no_report_of_an_enrolled_device(raw: bytes, flaw: str) -> None:
    assert check(raw, SECRETS) == flaw


@given(st.binary(max_size=300))
def test_h_no_bytes_raise(raw: bytes) -> None:
    assert unsealed(raw) is None


def test_a_report_always_fits_and_keeps_what_serves() -> None:
    reason = "\N{SNOWMAN}" * 500
    large = report(
        have=tuple(f"release-{i}-{'x' * 75}" for i in range(1000)),
        refusals=tuple(ReportedRefusal(release="r", channel="stable", reason=reason) for _ in range(100)),
        outcomes=tuple(ReportedOutcome(channel="stable", ending="failed", reason=reason) for _ in range(100)),
    )
    raw = sealed(large, SECRET)
    found = check(raw, SECRETS)
    assert len(raw) <= MAX_REPORT_BYTES
    assert isinstance(found, Report)
    assert found.lines == large.lines
    assert found.have == large.have[: len(found.have)] != ()


def test_a_channel_that_brought_nothing_has_an_empty_line() -> None:
    assert report().line("stable").active == "tiny-2.0"
    assert report().line("beta") == ReportedLine(channel="beta")


@pytest.mark.parametrize("device", ["a", "0" * 32, "shop-floor_7.lyon", "A" * 100])
def test_what_can_be_a_devices_id(device: str) -> None:
    assert device_problem(device) is None


@pytest.mark.parametrize("device", ["", ".hidden", "a/b", "a b", "é", "nul", "COM1", "a" * 101, "a\n", "-x"])
def test_what_cannot_be_a_devices_id_since_it_names_a_file(device: str) -> None:
    assert device_problem(device)


# --- enrolment ---


ENROLMENT = Enrolment(format=1, device="dev-1", secret=SECRET.hex(), labels={"site": "lyon"})


def test_an_enrolment_is_read_as_it_was_shown() -> None:
    assert parse_enrolment(ENROLMENT.to_bytes(), path="x") == ENROLMENT


@pytest.mark.parametrize(
    "changed",
    [{"secret": "00"}, {"device": "../x"}, {"device": "aux"}, {"format": 2}, {"more": 1}, {"labels": 3}],
    ids=str,
)
def test_what_is_no_enrolment_is_said_without_showing_the_secret(changed: dict[str, Any]) -> None:
    facts = msgspec.json.decode(ENROLMENT.to_bytes()) | changed
    with pytest.raises(UsageError, match="the-file") as caught:
        parse_enrolment(msgspec.json.encode(facts), path="the-file")
    assert SECRET.hex() not in str(caught.value)


def test_an_enrolment_has_a_bound() -> None:
    with pytest.raises(UsageError, match="larger"):
        parse_enrolment(b" " * 100_000, path="x")
