"""H: whatever comes in place of a document, it is read or refused, by an error of the tree and nothing else."""

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CorruptRelease, EdgekitError, UnsupportedRelease, UsageError
from edgekit.release import channel, delta, manifest, provisioning, reports
from edgekit.release.channel import Channel, Device, Labels, RampStep
from edgekit.release.manifest import Requires
from edgekit.release.provisioning import Provisioning
from edgekit.release.reports import Enrolment, Machine, Report, ReportedLine
from tests.contents import make, make_delta, noise
from tests.spoilt import spoilt

SECRET = b"k" * 32
MADE = make({"model.onnx": noise(2500)})
RELEASE = msgspec.structs.replace(
    MADE.release, requires=Requires(edgekit="1.0", onnxruntime="1.31", machines=("aarch64",))
)
DELTA, _ = make_delta(MADE, make({"model.onnx": noise(2400) + b"x" * 100}, version="2"))
CHANNEL = Channel(
    format=1,
    name="stable",
    version=1,
    release="tiny-1",
    salt="s",
    ramp=(RampStep(1, 10.0), RampStep(2, 50.0)),
    labels=Labels(allow={"site": ("lyon",)}),
)
PROVISIONING = Provisioning(
    format=1, root="{}", floors={"tiny": 1}, repositories=("https://example.org",), labels={"a": "b"}, report="/x"
)
MACHINE = Machine(system="Linux", machine="aarch64", processor="p", cores=4, memory_bytes=1)
REPORT = Report(
    format=1,
    device="d",
    counter=7,
    at=1,
    agent="1",
    machine=MACHINE,
    lines=(ReportedLine(channel="stable", active="tiny-1"),),
    have=("tiny-1",),
)
ENROLMENT = Enrolment(format=1, device="d", secret=SECRET.hex(), labels={"a": "b"})


def _decided(raw: bytes) -> None:
    found = channel.parse(raw)
    channel.decide(found, Device(id="x", labels={"site": "lyon"}), now=5.0, has_one=False)
    assert channel.parse(found.to_bytes()) == found


DOCUMENTS: dict[str, tuple[bytes, Callable[[bytes], object], tuple[type[EdgekitError], ...]]] = {
    "manifest": (RELEASE.to_bytes(), manifest.parse, (CorruptRelease, UnsupportedRelease)),
    "channel": (CHANNEL.to_bytes(), _decided, (CorruptRelease, UnsupportedRelease)),
    "delta": (DELTA.to_bytes(), delta.parse, (CorruptRelease, UnsupportedRelease)),
    "provisioning": (PROVISIONING.to_bytes(), lambda raw: provisioning.parse(raw, path="p"), (UsageError,)),
    "report": (reports.sealed(REPORT, SECRET), lambda raw: reports.check(raw, {"d": SECRET}), ()),
    "enrolment": (ENROLMENT.to_bytes(), lambda raw: reports.parse_enrolment(raw, path="p"), (UsageError,)),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_right_is_read(name: str) -> None:
    raw, read, _ = DOCUMENTS[name]
    read(raw)


@pytest.mark.parametrize("name", DOCUMENTS)
@given(data=st.data())
def test_h_what_is_spoilt_is_read_or_refused(data: st.DataObject, name: str) -> None:
    raw, read, refusals = DOCUMENTS[name]
    with contextlib.suppress(*refusals):
        read(data.draw(spoilt(raw)))
