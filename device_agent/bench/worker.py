"""A process that measures a bundle: `python -m device_agent.bench.worker DIR THREADS ROWS PREFILL`, told by JSON lines.

It answers with its Facts once the bundle is loaded, then every Plan on standard input with a Round. What it cannot
load is answered with {"problem": ...}. A process of its own keeps the memory and the first-load costs of several
bundles apart, and lets one wait, asleep, while another is measured.
"""

import sys
import time
from pathlib import Path

import msgspec
import psutil

from device_agent.bench.energy import EnergyMeter
from device_agent.bench.measure import Timer
from device_agent.bench.plan import Plan
from device_agent.bench.records import Facts
from device_agent.bench.weights import bytes_per_token
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.records import EngineSettings, PrefillMode
from device_agent.loader import Loader
from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError
from edgekit.home import home


def main(folder: str, threads: str, most_rows: str, prefill: str) -> None:
    """Answer until standard input ends."""
    process = psutil.Process()
    rss_start_bytes = process.memory_info().rss
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        bundle = open_bundle(Path(folder))
        model = open_rows(bundle, threads=int(threads), most_rows=int(most_rows))
    except EdgekitError as error:
        _say({"problem": str(error)})
        return
    manifest, load_s, load_cpu_s = bundle.manifest, time.perf_counter() - started, time.process_time() - cpu_started
    rss_loaded_bytes = process.memory_info().rss
    settings = EngineSettings(threads=int(threads), prefill=msgspec.convert(prefill, PrefillMode))
    loader = Loader(bundle, settings, home())
    loader.complete(model)
    prompt = model.prompt if isinstance(model, OnnxRows) else None
    facts = Facts(
        name=manifest.name,
        version=manifest.version,
        threads=int(threads),
        context_tokens=model.context_tokens,
        most_rows=model.most_rows,
        weight_bytes_per_token=bytes_per_token(manifest),
        load_s=load_s,
        load_cpu_s=load_cpu_s,
        rss_start_bytes=rss_start_bytes,
        rss_loaded_bytes=rss_loaded_bytes,
        int8_from_tokens=None if prompt is None else prompt.crossover,
    )
    _say(facts)
    timer = Timer(model, manifest.arch.vocab, EnergyMeter())
    for line in sys.stdin.buffer:
        _say(timer.round(msgspec.json.decode(line, type=Plan)))


def _say(record: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(record) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
