"""The link of this device, put together: who it is, where it looks, and the rooms that it leads through."""

import dataclasses
from importlib import metadata
from pathlib import Path

import psutil

import edgekit
from device_agent.activation.activation import Activation
from device_agent.activation.probe import ChildProbe
from device_agent.activation.records import Unserved
from device_agent.releases.store import Store
from device_agent.shelf.synced import bases
from device_agent.sync.delivery import Delivery
from device_agent.sync.identity import Identity, read_identity
from device_agent.sync.judging import Here, this_machine
from device_agent.sync.link import Connect, Link, Parts
from device_agent.sync.lock import FOLDER
from device_agent.sync.records import Clock, LinkSettings, Source, Stop
from device_agent.sync.rooms import Rooms
from device_agent.sync.settings import with_provisioning
from device_agent.sync.transport import open_source
from device_agent.sync.trust import Trust
from edgekit.errors import NotEnrolled
from edgekit.release.channel import Device

TRUST_FOLDER = "trust"


def compose_alone(home: Path, settings: LinkSettings, *, models: Path, clock: Clock) -> Rooms:
    """The rooms for a process that serves nothing: an agent that runs beside sees the record, and takes over.

    `models` is where other bundles are: an adapter may stand beside one of those.
    Raises NotEnrolled, TrustLost, StorageFailed.
    """
    store = Store(home)
    activation = Activation(store, probe=ChildProbe(bases(store, models)), switch=Unserved(), clock=clock)
    return compose(home, settings, store=store, activation=activation, clock=clock)


def compose(home: Path, settings: LinkSettings, *, store: Store, activation: Activation, clock: Clock) -> Rooms:
    """The rooms of the agent whose folder is `home`. Raises NotEnrolled, TrustLost, StorageFailed."""
    identity = read_identity(home)
    if identity is None:
        raise NotEnrolled(f"{home} was never told what to trust")
    complete = with_provisioning(settings, identity.provisioning, labels=identity.device.labels)
    trust = trust_of(home, identity, clock=clock)
    device = Device(id=identity.device.id, labels=complete.labels)
    connect = _connecting(clock)
    delivery = Delivery(store, trust, reserve_bytes=complete.reserve_bytes)
    parts = Parts(trust=trust, connect=connect, store=store, delivery=delivery, activation=activation)
    return Rooms(
        home=home,
        identity=dataclasses.replace(identity, device=device),  # reports say the labels that count here
        device=device,
        settings=complete,
        trust=trust,
        connect=connect,
        store=store,
        activation=activation,
        link=Link(parts, complete, device=device, here=here()),
    )


def trust_of(home: Path, identity: Identity, *, clock: Clock) -> Trust:
    """What the device trusts."""
    built = Path(edgekit.__file__).stat().st_mtime
    return Trust(home / FOLDER / TRUST_FOLDER, identity.provisioning, clock=clock, built=built)


def here() -> Here:
    """This machine, as far as a release may ask for it."""
    return this_machine(
        edgekit=edgekit.__version__,
        onnxruntime=metadata.version("onnxruntime"),
        memory_bytes=psutil.virtual_memory().total,
    )


def _connecting(clock: Clock) -> Connect:
    def connect(settings: LinkSettings, stop: Stop) -> Source:
        if not settings.repositories:
            raise NotEnrolled("it was not told of any repository")
        return open_source(settings.repositories, settings=settings, stop=stop, clock=clock)

    return connect
