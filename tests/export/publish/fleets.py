"""Devices that report, without devices."""

from collections.abc import Iterable

from edgekit.release.channel import Channel, RampStep, slice_of
from edgekit.release.reports import Enrolment, Machine, Report, ReportedLine, ReportedRefusal, sealed
from export.publish.devices import FORMAT, Fleet, enrolled

NOW = 1_800_000_000.0
MACHINE = Machine(system="Linux", machine="aarch64", processor="Cortex-A76", cores=4, memory_bytes=8 << 30)
OLD, NEW = "tiny-1.0", "tiny-2.0"


def secret(device: str) -> bytes:
    return device.encode().ljust(32, b"-")[:32]


def fleet(devices: Iterable[str]) -> Fleet:
    found = Fleet(format=FORMAT)
    for device in devices:
        found = enrolled(found, Enrolment(format=1, device=device, secret=secret(device).hex()), now=NOW)
    return found


def channel(*percents: float) -> Channel:
    ramp = tuple(RampStep(i, percent) for i, percent in enumerate(percents))
    return Channel(format=1, name="stable", version=1, release=NEW, previous=OLD, salt="s", ramp=ramp)


def report(device: str, *, counter: int = 1, have: tuple[str, ...] = (), **line: object) -> Report:
    lines = (ReportedLine(channel="stable", **line),) if line else ()  # type: ignore[arg-type]
    return Report(
        format=1, device=device, counter=counter, at=int(NOW), agent="1", machine=MACHINE, lines=lines, have=have
    )


def failed(device: str, *, reason: str = "it hangs", counter: int = 1) -> Report:
    base = report(device, counter=counter, active=OLD)
    refusal = ReportedRefusal(release=NEW, channel="stable", reason=reason)
    return Report(
        format=1,
        device=device,
        counter=counter,
        at=base.at,
        agent="1",
        machine=MACHINE,
        lines=base.lines,
        refusals=(refusal,),
    )


def envelope(made: Report) -> bytes:
    return sealed(made, secret(made.device))


def devices(count: int, *, begin: float = 0.0, end: float = 100.0, salt: str = "s") -> list[str]:
    """So many devices in that part of a rollout, in percent."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        if begin * 100 <= slice_of(salt, f"d{number}") < end * 100:
            found.append(f"d{number}")
        number += 1
    return found
