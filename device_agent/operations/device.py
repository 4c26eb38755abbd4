"""The report of this machine: what it is, how it feels, and what it is doing."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from device_agent.engine.records import EngineState
from device_agent.http.services import Card, Rates
from device_agent.sensors import Battery, Disk, Memory, Readings
from edgekit import __version__
from edgekit.hardware import processor_name, usable_cores


@dataclass(frozen=True, slots=True)
class Versions:
    """Of what computes."""

    edgekit: str
    onnxruntime: str
    python: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change. `threads` are the processor's, `cores` those that this process may use."""

    processor: str
    cores: int
    threads: int
    system: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Unix seconds, as this machine believes."""

    now: int


@dataclass(frozen=True, slots=True)
class Running:
    """An engine in memory."""

    id: str
    engine: EngineState


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """What /v1/edgekit/device says."""

    versions: Versions
    uptime_s: float
    machine: Machine
    memory: Memory
    disk: Disk | None
    temperature_c: float | None
    throttled: bool | None
    battery: Battery | None
    rates: Rates
    running: int
    waiting: int
    models: Sequence[Running]
    clock: Clock


def versions() -> Versions:
    """Of this installation."""
    return Versions(__version__, metadata.version("onnxruntime"), platform.python_version())


def machine() -> Machine:
    """Of this computer."""
    return Machine(processor_name(), usable_cores(), os.cpu_count() or 1, platform.system(), platform.machine())


def report(
    cards: Sequence[Card], readings: Readings, rates: Rates, *, built: tuple[Versions, Machine], uptime_s: float
) -> DeviceReport:
    """All of it."""
    running = [Running(card.id, card.state) for card in cards if card.state is not None]
    return DeviceReport(
        versions=built[0],
        uptime_s=round(uptime_s, 1),
        machine=built[1],
        memory=readings.memory,
        disk=readings.disk,
        temperature_c=readings.temperature_c,
        throttled=readings.throttled,
        battery=readings.battery,
        rates=rates,
        running=sum(each.engine.running for each in running),
        waiting=sum(each.engine.waiting for each in running),
        models=running,
        clock=Clock(int(time.time())),
    )
