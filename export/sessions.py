"""Opening a graph for the exporter's own use: all cores, errors as exceptions, nothing on the terminal."""

from pathlib import Path

import onnxruntime

from edgekit.hardware import usable_cores


def open_session(
    graph: Path | bytes, *, threads: int | None = None, arena: bool = True
) -> onnxruntime.InferenceSession:
    """A session over a file or a serialised model on `threads` threads (default: the physical cores).

    Without an `arena`, memory goes back to the system when the session closes. Raises what onnxruntime raises.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores() if threads is None else threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    model = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
