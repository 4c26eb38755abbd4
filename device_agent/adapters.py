"""The LoRA adapters of one loaded model, by name: read from folders, added and removed while it runs."""

import threading
from pathlib import Path

import numpy as np

from device_agent.engine.graphs.session import read_parameters
from device_agent.engine.rows import Floats, Lora
from edgekit import adapter as formats
from edgekit import contract
from edgekit.adapter import AdapterFolder, AdapterManifest
from edgekit.bundle import Bundle
from edgekit.errors import CorruptBundle, InvalidRequest

MOST_ADAPTERS = 1000


class Adapters:
    """What requests may ask for. Any thread may call.

    An adapter that is replaced or removed stays with the requests that have it until they end.
    """

    def __init__(self, base: Bundle) -> None:
        self._base = base
        self._changing = threading.Lock()
        self._found: dict[str, tuple[AdapterManifest, Lora]] = {}

    def manifests(self) -> tuple[AdapterManifest, ...]:
        """What `adapter.json` says of each, by name."""
        found = self._found
        return tuple(found[name][0] for name in sorted(found))

    def named(self, name: str | None) -> Lora | None:
        """The adapter that a request names, None if it names none. Raises InvalidRequest for one that is not there."""
        if name is None:
            return None
        found = self._found.get(name)
        if found is None:
            known = ", ".join(sorted(self._found)[:20]) or "none"
            raise InvalidRequest(f"There is no adapter {name[:100]!r}. This model has: {known}.", param="model")
        return found[1]

    def add(self, folder: Path) -> tuple[AdapterManifest, Lora | None]:
        """Read an adapter, and what took its name until now.

        Raises NotABundle, UnsupportedFormat, CorruptBundle, UnsafePath or WrongBase, and InvalidRequest if there are
        too many.
        """
        opened = formats.open_adapter(folder)
        lora = read(opened, self._base)
        name = opened.manifest.name
        with self._changing:
            if name not in self._found and len(self._found) >= MOST_ADAPTERS:
                raise InvalidRequest(f"There are {MOST_ADAPTERS} adapters already.", param="model")
            before = self._found.get(name)
            self._found = {**self._found, name: (opened.manifest, lora)}  # readers see the old ones or the new
        return opened.manifest, before[1] if before else None

    def remove(self, name: str) -> Lora:
        """Forget an adapter. Raises InvalidRequest for one that is not there."""
        with self._changing:
            self.named(name)
            lora = self._found[name][1]
            self._found = {other: found for other, found in self._found.items() if other != name}
        return lora


def read(adapter: AdapterFolder, base: Bundle) -> Lora:
    """The adapter's tensors, if they are what its manifest says and `base` takes.

    Raises WrongBase or CorruptBundle; sizes and hashes are checked before a value is read.
    """
    formats.check(adapter, base)
    name = str(adapter.folder)
    linears = formats.linears(base.manifest.arch)
    wanted: dict[str, tuple[int, int]] = {}
    for linear, rank in adapter.manifest.ranks.items():
        inputs, outputs = linears[linear]
        wanted |= dict(zip(contract.lora_names(linear), ((inputs, rank), (rank, outputs)), strict=True))
    given = read_parameters(adapter.weights)
    if given.keys() != wanted.keys():
        raise CorruptBundle(name, f"{adapter.weights.name} does not hold the tensors that its ranks name")
    tensors: dict[str, Floats] = {}
    for key, shape in wanted.items():
        array = given[key]
        if array.dtype != np.float32 or array.shape != shape:
            raise CorruptBundle(name, f"{key} is {array.dtype}{list(array.shape)}, not float32{list(shape)}")
        if not np.isfinite(array).all():
            raise CorruptBundle(name, f"{key} holds values that are no numbers")
        tensors[key] = array.astype(np.float32, order="C", copy=False)
    return Lora(adapter.manifest.name, tensors)
