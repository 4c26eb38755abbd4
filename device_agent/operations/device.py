"""The report of this machine: what it is, how it feels, and what it is doing."""

import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata

from device_agent.http.replies.reports import Clock, DeviceReply, Machine, Running, Versions
from device_agent.http.services import Card, Rates
from device_agent.sensors import Readings
from edgekit import __version__
from edgekit.hardware import processor_name, usable_cores


def versions() -> Versions:
    """Of this installation."""
    found = metadata.version("onnxruntime")
    return Versions(edgekit=__version__, onnxruntime=found, python=platform.python_version())


def machine() -> Machine:
    """Of this computer."""
    return Machine(
        processor=processor_name(),
        cores=usable_cores(),
        threads=os.cpu_count() or 1,
        system=platform.system(),
        architecture=platform.machine(),
    )


def report(
    cards: Sequence[Card], readings: Readings, rates: Rates, *, built: tuple[Versions, Machine], uptime_s: float
) -> DeviceReply:
    """All of it."""
    running = [Running(id=card.id, engine=card.state) for card in cards if card.state is not None]
    return DeviceReply(
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
        clock=Clock(now=int(time.time())),
    )
