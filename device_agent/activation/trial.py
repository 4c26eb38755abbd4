"""The program that a release on trial runs in: `python -m device_agent.activation.trial FOLDER [ADAPTER]`.

It loads the bundle as the agent does, hashes included, computes the golden answers and a few tokens more, and writes
one `Report`. It may crash, hang or run out of memory: whoever started it sees that, and nobody else does. It gives way
to everything else on the machine, is the first that a machine without memory kills, and ends when its standard input
does, so that it never outlives who started it.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import psutil

from device_agent import adapters
from device_agent.activation.health import Report
from device_agent.check import distance
from device_agent.checked import checked
from device_agent.engine.graphs.session import open_embedder
from device_agent.engine.records import GREEDY, EngineSettings, Generation
from device_agent.engine.rows import Floats, Lora, Rows
from device_agent.loader import Loader, read_tokenizer
from device_agent.model import Model
from edgekit.adapter import AdapterFolder, open_adapter
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import EdgekitError
from edgekit.hardware import peak_rss_bytes, usable_cores
from edgekit.manifest import Golden

READ_TOKENS = 256
"""At once: attention's memory grows with it, and whoever wrote the manifest chose how long a prompt is."""
ROUNDS, ROUND_TOKENS = 3, 16
"""The best of a few short rounds says how fast it is: others compute too, and come first."""
ANSWER_TOKENS = 8
A_TEXT = "a text"
_NICE = 10


class Unhealthy(Exception):
    """What is wrong with the release."""


def main(folder: str, adapter: str = "") -> None:
    """Write the report."""
    _give_way()
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        report = examined(Path(folder), Path(adapter) if adapter else None)
    except (EdgekitError, Unhealthy) as problem:
        report = Report(problem=str(problem), rss_bytes=peak_rss_bytes())
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def examined(folder: Path, adapter: Path | None) -> Report:
    """Load a bundle, with an adapter if there is one, and see what it does. Raises EdgekitError or Unhealthy."""
    began = time.perf_counter()
    bundle = open_bundle(folder)
    if bundle.manifest.embedding is not None:
        return _encoder(bundle, began)
    settings = EngineSettings(threads=usable_cores())
    loader = Loader(bundle, settings, None)
    tokenizer, rows = loader.first()
    load_s = time.perf_counter() - began
    opened = None if adapter is None else open_adapter(adapter)
    right, golden, speed = _on_rows(bundle, rows, opened)
    with contextlib.closing(Model(loader, rows, tokenizer, settings=settings)) as model:
        _answer(model, opened, _a_prompt(bundle, opened))
    return Report(
        golden=golden,
        right=right,
        decode_tokens_per_s=speed,
        rss_bytes=peak_rss_bytes(),
        load_s=load_s,
    )


def _encoder(bundle: Bundle, began: float) -> Report:
    embedder = checked(bundle, lambda: open_embedder(bundle, read_tokenizer(bundle), threads=usable_cores()))
    load_s = time.perf_counter() - began
    if not np.isfinite(embedder.embed([A_TEXT])).all():
        raise Unhealthy("its vectors hold values that are no numbers")
    texts = () if bundle.manifest.embedding is None else bundle.manifest.embedding.golden
    right = sum(not distance(embedder, text) for text in texts)
    return Report(golden=len(texts), right=right, rss_bytes=peak_rss_bytes(), load_s=load_s)


def _on_rows(bundle: Bundle, rows: Rows, adapter: AdapterFolder | None) -> tuple[int, int, float]:
    """Golden tokens that come out, of how many, and the tokens a second."""
    lora, golden = None, bundle.manifest.golden
    if adapter is not None:
        lora, golden = adapters.read(adapter, bundle), adapter.manifest.golden
    found = [_agreement(rows, each, vocab=bundle.manifest.arch.vocab, lora=lora) for each in golden]
    rows.adapt(0, lora)
    speed = max(_speed(rows, _a_prompt(bundle, adapter)) for _ in range(ROUNDS))
    rows.truncate(0, 0)
    rows.adapt(0, None)
    return sum(right for right, _ in found), sum(total for _, total in found), speed


def _agreement(rows: Rows, golden: Golden, *, vocab: int, lora: Lora | None) -> tuple[int, int]:
    """How many of the sure tokens are the likeliest where they stand, and how many there are.

    Each is asked for after the golden ones before it, so that one difference counts once.
    """
    wanted = golden.tokens[: golden.sure]
    rows.truncate(0, 0)
    rows.adapt(0, lora)
    try:
        logits = _read(rows, golden.prompt)
        right = 0
        for at, token in enumerate(wanted):
            right += int(np.argmax(logits[:vocab])) == token
            if at + 1 < len(wanted):
                logits = _finite(rows.decode({0: token})[0])
    except ValueError as error:  # a prompt that does not fit, or that is none
        raise Unhealthy(f"a golden prompt cannot be read: {error}") from error
    return right, len(wanted)


def _read(rows: Rows, prompt: Sequence[int]) -> Floats:
    logits = rows.read(0, prompt[:READ_TOKENS])
    for start in range(READ_TOKENS, len(prompt), READ_TOKENS):
        logits = rows.read(0, prompt[start : start + READ_TOKENS])
    return _finite(logits[-1])


def _finite(logits: Floats) -> Floats:
    if not np.isfinite(logits).all():
        raise Unhealthy("its logits hold values that are no numbers")
    return logits


def _a_prompt(bundle: Bundle, adapter: AdapterFolder | None) -> tuple[int, ...]:
    golden = bundle.manifest.golden if adapter is None else adapter.manifest.golden
    bos = bundle.manifest.tokens.bos
    return golden[0].prompt[:READ_TOKENS] if golden else (0 if bos is None else bos,)


def _speed(rows: Rows, prompt: Sequence[int]) -> float:
    """Tokens a second of one short round."""
    rows.truncate(0, 0)
    token = int(np.argmax(_read(rows, prompt)))
    count = min(ROUND_TOKENS, rows.context_tokens - len(prompt))
    began = time.perf_counter()
    for _ in range(count):
        token = int(np.argmax(_finite(rows.decode({0: token})[0])))
    return count / max(time.perf_counter() - began, 1e-9)


def _answer(model: Model, adapter: AdapterFolder | None, prompt: tuple[int, ...]) -> None:
    """One request through everything that requests go through."""
    name = None if adapter is None else model.add_adapter(adapter.folder).name
    tokens = min(ANSWER_TOKENS, model.context_tokens - len(prompt))
    if tokens > 0:
        for _ in model.submit(Generation(prompt=prompt, sampling=GREEDY, max_tokens=tokens, adapter=name)):
            pass


def _give_way() -> None:
    with contextlib.suppress(OSError, AttributeError, psutil.Error):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else _NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _end_with_input() -> None:
    while os.read(0, 1):  # a buffered reader's lock would be held when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
