"""What the routes of operators say: the agent's health, and this machine. Records alone."""

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from device_agent.engine.records import EngineState
from device_agent.http.services import Rates, Status
from device_agent.sensors import Battery, Disk, Memory


class UnavailableError(Struct, frozen=True, kw_only=True):
    """What llama.cpp's server says while it loads; its clients look for it."""

    message: str = "Loading model"
    type: str = "unavailable_error"
    code: int = 503


class HealthReply(Struct, frozen=True, kw_only=True):
    """How the agent is. With `error`, no request is answered now."""

    status: Status
    reasons: Sequence[str] = ()
    error: UnavailableError | UnsetType = UNSET


class Versions(Struct, frozen=True, kw_only=True):
    """Of what computes."""

    edgekit: str
    onnxruntime: str
    python: str


class Machine(Struct, frozen=True, kw_only=True):
    """What does not change. `threads` are the processor's, `cores` those that this process may use."""

    processor: str
    cores: int
    threads: int
    system: str
    architecture: str


class Clock(Struct, frozen=True, kw_only=True):
    """Unix seconds, as this machine believes."""

    now: int


class Running(Struct, frozen=True, kw_only=True):
    """An engine in memory."""

    id: str
    engine: EngineState


class DeviceReply(Struct, frozen=True, kw_only=True):
    """This machine and its load. `rates` are those of the last 10 s, as far as somebody looked before."""

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
