"""How a graph is opened: onnxruntime's settings, and what is done about memory once it is loaded.

What was tried on two cores of a Zen 3 server CPU (onnxruntime 1.32, no VNNI); Phi-2's shape is 1.86 GB of INT4 in
blocks of 32, SmolLM2-135M is 106 MB. Wall and CPU are those of opening the graph alone, in seconds, warm page cache,
in a process of its own; resident memory in MiB:

    setting                                       Phi-2: wall  CPU  resident (file)   SmolLM2: wall   CPU
    onnxruntime's defaults                               3.4   3.4    2317 (341)                0.245  0.255
    prepack.enable_parallel                              1.8   3.5    2321 (341)                0.17   0.26-0.31
      and pages of the file let go                       1.8   3.5    2012  (33)                0.17   0.26-0.31
    optimisation basic, or none                                                                 0.24   0.24
    packed weights saved and mapped                      2.6   2.6    2320 (2280)               0.20   0.215
    disable_prepacking                                   0.03  0.05                             0.034  0.034
    arena off, device allocator for initializers         no difference

- Opening is packing: without it, Phi-2 opens in 0.05 s of CPU, and then decodes fifty times slower (SmolLM2: 360 ms a
  token instead of 7). Graph parsing, passes and constant folding are those 0.03 to 0.05 s, so nothing is gained by
  saving an optimised graph.
- Packed weights on disk do not spare the packing: onnxruntime packs every matrix again, hashes the result, and looks up
  the hash among the saved ones. What it spares is fresh memory (the result is mapped). For that Phi-2's 1.9 GB became a
  file of 3.9 GB. Not done.
- Packing on all threads halves the time to wait. Peak memory rises by what it reads at once (2445 to 3649 MiB), all
  of it pages of the file, which the kernel takes back without writing.
- Packing keeps a copy of each INT4 matrix's scales and leaves the originals mapped and resident (308 MiB of Phi-2),
  where nothing reads them again. They are let go; decode speed is unchanged (ratio 1.00 to 1.01 in turn).
- The packed form itself is larger than the file's: blocks of 32 get a float sum each beside their float scale.
- A second of CPU for Phi-2 is out of reach in this way: the kernel alone takes about one to clear 2 GB of fresh memory,
  and packing takes two. A warm start avoids what can be avoided: hashing the file (1.4 s, `device_agent.stamps`),
  OpenBLAS's threads and a package that imported everything (0.1 s). From process start to a loaded model Phi-2 took
  6.8 s (6.9 of CPU) before and 2.6 s (4.1) after, SmolLM2 0.68 (0.79) and 0.56 (0.64): of the latter 0.2 are imports
  and 0.1 the tokenizer.
- Huge pages brought nothing certain here, so they are off: `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` decoded between
  0.99 and 1.06 times as fast in five comparisons, but takes 125 to 150 MiB more with Phi-2 (buffers that are half
  empty), needs the program to start itself again, and made opening up to twice as dear, as fragmented as free memory
  was. Moving the packed weights into huge pages afterwards (`device_agent.pages.gather`, `serve --huge-pages`) decoded
  0.98 to 1.03 times as fast and takes no more memory; it costs 2.5 to 5.7 s of CPU for Phi-2, on a thread that nobody
  waits for. Other CPUs have gained 5 to 8 %: measure with tests/bench/loading.py.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from device_agent import pages
from edgekit import contract

log = logging.getLogger(__name__)

ENTRIES: Mapping[str, str] = {
    # How long a worker thread waits busily for the next operator before it sleeps. The default outlasts any gap between
    # operators, and where a browser runs too, such threads fight it for the cores: SmolLM2 on two cores decoded 63
    # tokens/s beside one busy process with the default and 78 with 20 to 100 us; alone 128, and 132 to 139.
    "session.intra_op.spin_duration_us": "50",
    "session.prepack.enable_parallel": "1",
}
"""Session configuration entries, by onnxruntime's names (onnxruntime_session_options_config_keys.h)."""


def let_go_of_weights(graph: Path) -> None:
    """After loading: forget the pages of the weights' file that packing has read and nothing reads again."""
    name = contract.DATA_FILE if graph.name == contract.ADAPTERS_FILE else f"{graph.name}.data"
    freed = pages.let_go(graph.with_name(name))
    if freed:
        log.debug("%s: %d bytes of its file let go", contract.DATA_FILE, freed)
