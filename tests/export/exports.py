"""Short ways to a checkpoint, its weights and a bundle of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.manifest import Manifest
from edgekit.quant import Precision
from export.checkpoints import Checkpoint, TensorInfo, open_checkpoint
from export.families import arch_of
from export.families.weights import CheckpointWeights, Weights
from export.job import ExportJob
from export.pipeline import export
from tests import tiny
from tests.export.silent import Heard

Values = Mapping[str, NDArray[np.float32]]


def export_tiny(source: Path, out: Path, precision: Precision = "fp32") -> Manifest:
    return export(ExportJob(source, out, precision), Heard())


@contextmanager
def opened(source: Path) -> Iterator[tuple[ModelArch, Weights]]:
    with open_checkpoint(source) as made:
        arch = arch_of(made)
        yield arch, CheckpointWeights(made, arch)


def checkpoint(config: Mapping[str, object], tensors: Values) -> Checkpoint:
    """As much of a checkpoint as families look at."""
    infos = {name: TensorInfo(values.shape, "float32") for name, values in tensors.items()}
    return cast(
        Checkpoint,
        SimpleNamespace(
            config=config,
            names=lambda: infos,
            tensor=lambda name: tensors[name],
            rows=lambda name, start, stop: tensors[name][start:stop],
        ),
    )


def tiny_checkpoint(changed: Mapping[str, object], shape: tiny.Config = tiny.DEFAULT) -> Checkpoint:
    """The tiny model with some keys of its configuration changed."""
    return checkpoint({**tiny.hf_config(shape), **changed}, tiny.weights(shape))


def session(graph: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Decoder:
    """A bundle's graph, fed by the contract and nothing else."""

    def __init__(self, folder: Path, arch: ModelArch, *, exact: bool = False) -> None:
        model = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False)
        for node in model.graph.node if exact else ():
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 1
        file = folder / ".decoder-of-a-test.onnx"
        onnx.save(model, str(file))
        self._session = session(file)
        file.unlink()
        self._arch = arch
        self._names = [contract.past_name(i, half) for i in range(arch.layers) for half in contract.HALVES]
        types = {entry.name: entry.type for entry in self._session.get_inputs()}
        self.cache_type = {"tensor(float)": np.float32, "tensor(int8)": np.int8}[types[self._names[0]]]
        self.cache: list[NDArray[np.generic]] = []
        self.reset()

    def reset(self) -> None:
        shape = (1, self._arch.kv_heads, 0, self._arch.head_dim)
        self.cache = [np.zeros(shape, self.cache_type) for _ in self._names]

    def step(self, ids: list[int], **more: Any) -> NDArray[np.float32]:
        """Append `ids`: logits [tokens, vocab]."""
        total = self.cache[0].shape[2] + len(ids)
        feed = {contract.INPUT_IDS: np.array([ids]), contract.ATTENTION_MASK: np.ones((1, total), np.int64)}
        results = self._session.run(None, feed | dict(zip(self._names, self.cache, strict=True)) | more)
        outputs = dict(zip([entry.name for entry in self._session.get_outputs()], results, strict=True))
        self.cache = [outputs[name.replace("past_key_values", "present")] for name in self._names]
        return cast("NDArray[np.float32]", outputs[contract.LOGITS][0])

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        self.reset()
        tokens = [int(self.step(prompt)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self.step(tokens[-1:])[-1].argmax()))
        return tokens


def error_of(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest difference relative to the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
