"""One engine in a process of its own: forward passes over given ids, timed, without sampling or text.

    PYTHON tests/bench/runners.py edgekit|llama.cpp|onnxruntime-genai MODEL THREADS

PYTHON is that of an environment with the engine and numpy; nothing else of ours is needed for the rivals. The first
line on standard output says that the model is loaded: {"load_s": ..., "settings": [...]}, with names of the ways in
which the engine can be asked. Then every line of JSON on standard input, {"prompt": 512, "decode": 64, "setting": ""},
is answered with one: [prompt_s, decode_s]. The first token's logits belong to the prompt's time.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Pass = Callable[[int, int], tuple[float, float]]
MOST_TOKENS = 2048
"""Prompt and decoded tokens together, as far as a context is made for."""


def ids_for(count: int, vocab: int) -> list[int]:
    """Spread over the vocabulary: equal ones would sit in the cache."""
    return [(7919 * i + 104729) % vocab for i in range(count)]


def timed(read: Callable[[list[int]], object], prompt: list[int], decode: list[int]) -> tuple[float, float]:
    """Seconds for the prompt in one piece, and for the others one by one."""
    started = time.perf_counter()
    read(prompt)
    first = time.perf_counter()
    for token in decode:
        read([token])
    return first - started, time.perf_counter() - first


def edgekit(model: str, threads: int) -> dict[str, Pass]:
    """Ours, as the agent runs it."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from device_agent.engine.graphs.session import open_rows
    from device_agent.engine.records import EngineSettings
    from device_agent.engine.scheduling.turns import CHUNK_TOKENS
    from device_agent.loader import Loader
    from edgekit.bundle import open_bundle
    from edgekit.home import home

    bundle = open_bundle(Path(model))
    rows, vocab = open_rows(bundle, threads=threads), bundle.manifest.arch.vocab
    Loader(bundle, EngineSettings(threads=threads), home()).complete(rows)

    def read(ids: Sequence[int]) -> None:
        while len(ids) > CHUNK_TOKENS:  # as the scheduler does
            rows.read(0, ids[:CHUNK_TOKENS], keep=0)
            ids = ids[CHUNK_TOKENS:]
        rows.read(0, ids)

    def run(prompt: int, decode: int) -> tuple[float, float]:
        rows.truncate(0, 0)
        return timed(read, ids_for(prompt, vocab), ids_for(decode, vocab))

    return {"": run}


def llama(model: str, threads: int) -> dict[str, Pass]:
    """llama.cpp: flash attention as it chooses itself, and always."""
    import ctypes

    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    weights = llama_cpp.llama_model_load_from_file(model.encode(), settings)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(weights))

    def context(flash: int) -> Pass:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = MOST_TOKENS, 512, 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = flash
        made = llama_cpp.llama_init_from_model(weights, params)

        def read(ids: list[int]) -> None:
            for start in range(0, len(ids), 512):
                piece = ids[start : start + 512]
                held = (llama_cpp.llama_token * len(piece))(*piece)  # the batch only points to it
                if llama_cpp.llama_decode(made, llama_cpp.llama_batch_get_one(held, len(piece))):
                    sys.exit("llama.cpp could not read the tokens")
            llama_cpp.llama_synchronize(made)

        def run(prompt: int, decode: int, _kept: object = silent) -> tuple[float, float]:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(made), True)
            return timed(read, ids_for(prompt, vocab), ids_for(decode, vocab))

        return run

    kinds = {"": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO, "flash attention": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED}
    return {name: context(kind) for name, kind in kinds.items()}


def genai(model: str, threads: int) -> dict[str, Pass]:
    """onnxruntime-genai: its search's own step, and tokens appended without any search."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime_genai

    config = onnxruntime_genai.Config(model)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    loaded = onnxruntime_genai.Model(config)
    vocab = json.loads(Path(model, "genai_config.json").read_bytes())["model"]["vocab_size"]

    def generator(prompt: int, decode: int) -> Any:
        params = onnxruntime_genai.GeneratorParams(loaded)
        length = prompt + decode + 2
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        return onnxruntime_genai.Generator(loaded, params)

    def appended(prompt: int, decode: int) -> tuple[float, float]:
        made = generator(prompt, decode)
        return timed(
            lambda ids: made.append_tokens(np.asarray([ids], np.int32)), ids_for(prompt, vocab), ids_for(decode, vocab)
        )

    def searched(prompt: int, decode: int) -> tuple[float, float]:
        made, text = generator(prompt, decode), ids_for(prompt, vocab)
        started = time.perf_counter()
        made.append_tokens(np.asarray([text], np.int32))
        made.generate_next_token()
        first = time.perf_counter()
        for _ in range(decode):
            made.generate_next_token()
        return first - started, time.perf_counter() - first

    return {"": searched, "no search": appended}


ENGINES: dict[str, Callable[[str, int], dict[str, Pass]]] = {
    "edgekit": edgekit,
    "llama.cpp": llama,
    "onnxruntime-genai": genai,
}


def main() -> None:
    """Answer until standard input ends."""
    engine, model, threads = sys.argv[1:]
    started = time.perf_counter()
    settings = ENGINES[engine](model, int(threads))
    print(json.dumps({"load_s": time.perf_counter() - started, "settings": list(settings)}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(settings[asked["setting"]](asked["prompt"], asked["decode"])), flush=True)


if __name__ == "__main__":
    main()
