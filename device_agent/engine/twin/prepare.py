"""From a bundle to an opened twin: made if it is not there, measured if that was never done, or left out.

Making it takes seconds to a minute, so `Preparation` does it on threads of its own while the decoder answers already.
The thread that unpacks weights gives way to everything else; the session is opened by another one, because the threads
that onnxruntime makes inherit their maker's priority and would keep it.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import psutil

from device_agent.engine.records import PrefillMode
from device_agent.engine.twin import probe
from device_agent.engine.twin.cachefile import TwinCache
from device_agent.engine.twin.choose import ALWAYS, AnyGraph, Memory, ScratchRows, chosen
from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import EdgekitError
from edgekit.hardware import processor_name
from edgekit.twin.codes import Reach
from edgekit.twin.expand import read_layout

log = logging.getLogger(__name__)

RESERVE_BYTES = 512 << 20
"""Memory that must stay available beside the twin's weights: for caches, and for everybody else."""

_GIVES_WAY = 10
"""How nice the unpacking thread is."""


class Stopped(Exception):
    """The agent ends, or the bundle is being closed."""


@dataclass(frozen=True)
class Runtime(Generic[AnyGraph]):
    """What this room needs of onnxruntime and of the machine.

    `open_graph` loads `prefill.onnx` at a path, `rows` are scratch rows over the decoder's session; `version` is
    onnxruntime's, `threads` what both sessions use. `reach` and `available_bytes` ask the machine.
    """

    open_graph: Callable[[Path], AnyGraph]
    rows: ScratchRows[AnyGraph]
    version: str
    threads: int
    reach: Callable[[], Reach] = probe.reach
    available_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available)


def prepare(
    bundle: Bundle,
    home: Path,
    mode: PrefillMode,
    runtime: Runtime[AnyGraph],
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> AnyGraph | None:
    """The twin with its crossover set, or None if prompts are to be read with the decoder.

    "int4" never has a twin, "int8" always if there is disk and memory for it, "auto" if it is the faster one. Raises
    Stopped when `stopped` says so, CorruptBundle if onnxruntime does not take the graph. What else goes wrong is
    logged and means that there is none: the decoder reads every prompt as well.
    """
    if mode == "int4" or not bundle.has(contract.PREFILL_FILE):
        return None
    try:
        return _prepared(bundle, TwinCache(home / "cache" / "prefill"), mode, runtime, stopped)
    except (OSError, ValueError) as error:
        log.warning("prompts are read with the decoder's own weights: %s", error)
        return None


def _prepared(
    bundle: Bundle, cache: TwinCache, mode: PrefillMode, runtime: Runtime[AnyGraph], stopped: Callable[[], bool]
) -> AnyGraph | None:
    reach = runtime.reach()
    facts = (cache.folder(bundle, reach).name, processor_name(), str(runtime.threads), runtime.version)
    memory = Memory(cache.root, facts)
    if mode == "auto" and (known := memory.recall()) is not None and known.crossover is None:
        return None
    needed = read_layout(bundle.folder, bundle.manifest.quant.weights).size_bytes + RESERVE_BYTES
    if runtime.available_bytes() < needed:
        log.info("prompts are read with the decoder's own weights: memory for others is short")
        return None
    folder = cache.opened(bundle, reach) or _made(bundle, cache, reach, stopped)
    if folder is None:
        return None
    graph = runtime.open_graph(folder / contract.PREFILL_FILE)
    context = bundle.manifest.arch.context
    crossover = ALWAYS if mode == "int8" else chosen(runtime.rows, graph, memory, context_tokens=context)
    if crossover is None:
        return None
    graph.crossover = crossover
    return graph


def _made(bundle: Bundle, cache: TwinCache, reach: Reach, stopped: Callable[[], bool]) -> Path | None:
    def step() -> None:
        if stopped():
            raise Stopped

    with ThreadPoolExecutor(1, "twin", initializer=_give_way) as aside:
        return aside.submit(cache.made, bundle, reach, step).result()


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere this would slow the whole process down
        os.nice(_GIVES_WAY)


class Preparation(Generic[AnyGraph]):
    """`prepare` on a thread of its own: `ready` is called there with the twin, if there is one."""

    def __init__(
        self,
        bundle: Bundle,
        home: Path,
        mode: PrefillMode,
        runtime: Callable[[], Runtime[AnyGraph]],
        ready: Callable[[AnyGraph], None],
    ) -> None:
        self._stopped = threading.Event()
        self._work = (bundle, home, mode)
        self._runtime, self._ready = runtime, ready
        self._thread = threading.Thread(target=self._run, name="prompt-weights", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the work and wait until it has; `ready` is not called any more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def join(self) -> None:
        """Wait for the end of the work."""
        self._thread.join()

    def _run(self) -> None:
        try:
            graph = prepare(*self._work, self._runtime(), stopped=self._stopped.is_set)  # either may raise Stopped
        except Stopped:
            return
        except EdgekitError as error:
            log.warning("prompts are read with the decoder's own weights: %s", error)
            return
        if graph is not None and not self._stopped.is_set():
            self._ready(graph)
