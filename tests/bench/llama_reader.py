"""llama.cpp as a reader of ids, for comparisons on equal prompts. Needs numpy and llama-cpp-python, nothing of ours.

    python llama_reader.py quantise IN.gguf OUT.gguf f16|q4_k_m|q4_0|q8_0
    python llama_reader.py serve MODEL.gguf CONTEXT_TOKENS THREADS

`serve` answers lines of JSON on standard input, {"ids": [...], "keep": n}, with the logits after the last n ids: n rows
of float32 on standard output. The first line that it writes is the width of a row. What a sequence shares with the
one before is not read again, as in our own reader.
"""

import ctypes
import json
import sys
from collections.abc import Callable, Sequence

import llama_cpp
import numpy as np
from numpy.typing import NDArray

_BATCH = 512
_TYPES = {
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}


def quantise(source: str, out: str, kind: str) -> None:
    """As llama.cpp's own quantise tool without an importance matrix; the source may be quantised already."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _TYPES[kind]
    params.allow_requantize = True
    failed = llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
    if failed:
        sys.exit(f"llama.cpp could not make {out}")


class Context:
    """A model with one sequence."""

    def __init__(self, path: str, context_tokens: int, threads: int) -> None:
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch = context_tokens, _BATCH
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._ids: list[int] = []

    def after(self, ids: Sequence[int], keep: int) -> NDArray[np.float32]:
        """Logits [keep, vocab]."""
        known = 0
        while known < min(len(self._ids), len(ids) - keep) and self._ids[known] == ids[known]:
            known += 1
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._context), 0, known, -1)
        rows = [row for at in range(known, len(ids), _BATCH) for row in self._read(ids, at, len(ids) - keep)]
        self._ids = list(ids)
        return np.stack(rows)

    def _read(self, ids: Sequence[int], start: int, wanted: int) -> list[NDArray[np.float32]]:
        """One batch from `start` on; logits of its positions from `wanted` on."""
        positions = range(start, min(start + _BATCH, len(ids)))
        self._batch.n_tokens = len(positions)
        for i, position in enumerate(positions):
            self._batch.token[i], self._batch.pos[i] = ids[position], position
            self._batch.n_seq_id[i], self._batch.seq_id[i][0] = 1, 0
            self._batch.logits[i] = position >= wanted
        if llama_cpp.llama_decode(self._context, self._batch):
            sys.exit("llama.cpp could not read a prompt")
        outputs = [i for i, position in enumerate(positions) if position >= wanted]
        pointers = [llama_cpp.llama_get_logits_ith(self._context, i) for i in outputs]
        return [np.ctypeslib.as_array(pointer, shape=(self.vocab,)).copy() for pointer in pointers]


def serve(path: str, context_tokens: str, threads: str) -> None:
    """Answer until standard input ends."""
    context = Context(path, int(context_tokens), int(threads))
    print(context.vocab, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.buffer.write(context.after(asked["ids"], asked["keep"]).astype("<f4").tobytes())
        sys.stdout.buffer.flush()


_VERBS: dict[str, Callable[..., None]] = {"quantise": quantise, "serve": serve}


if __name__ == "__main__":
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    _VERBS[sys.argv[1]](*sys.argv[2:])
