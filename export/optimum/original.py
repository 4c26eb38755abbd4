"""The original in torch, by transformers: exported by optimum, and asked what is right.

The only module of the project's build side that imports them. Weights come from `Checkpoint`, tensor by
tensor, and the configuration from its `config.json`: transformers never opens a file here, so there is no remote
code, no pickle and no network.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from edgekit.errors import (
    MissingExtra,
    MissingTensor,
    ShapeMismatch,
    UnexpectedTensor,
    UnknownFamily,
    UnsupportedCheckpoint,
)
from export.checkpoints import Checkpoint
from export.families import FAMILIES

Floats = npt.NDArray[np.float32]
Task = Literal["generate", "embed"]

OPSET = 18
"""The newest that optimum 2.1 asks for by itself; newer ones bring nothing to these graphs."""

_TASKS: Mapping[Task, str] = {"generate": "text-generation-with-past", "embed": "feature-extraction"}
_BUFFERS = {"I64", "I32", "I16", "I8", "U8", "BOOL"}
"""Stored types of what is no weight: position numbers and masks that transformers makes by itself."""

_HEADS = ("cls.", "lm_head.", "pooler.", "classifier.")
"""What encoders carry for other tasks; vectors come from the states before it."""


class Original:
    """A checkpoint that passed `require_exporter` as a torch model in float32 on the CPU. All of it is in memory.

    Raises UnsupportedCheckpoint, MissingTensor, UnexpectedTensor or ShapeMismatch, and what `checkpoint.tensor` does.
    """

    def __init__(self, checkpoint: Checkpoint, task: Task) -> None:
        self._task = task
        with _quiet():
            self._model = _load(checkpoint, task)

    def write_graph(self, path: Path) -> None:
        """Write the float ONNX graph to `path`, its weights inside or beside it. Raises UnsupportedCheckpoint."""
        with _quiet():
            from optimum.exporters.onnx import export
            from optimum.exporters.tasks import TasksManager

            make = TasksManager.get_exporter_config_constructor(
                "onnx", model=self._model, task=_TASKS[self._task], library_name="transformers"
            )
            past = {"use_past_in_inputs": True} if self._task == "generate" else {}
            try:
                config = make(self._model.config, int_dtype="int64", float_dtype="fp32", **past)
                export(model=self._model, config=config, output=path, opset=OPSET, device="cpu")
            except Exception as error:  # torch, transformers and optimum raise whatever they like
                raise UnsupportedCheckpoint(f"optimum's exporter fails on it: {_first_line(error)}") from error

    def logits(self, ids: Sequence[int]) -> Floats:
        """Of a decoder: [tokens, vocab], in one pass without a cache."""
        return self._run(ids, "logits")

    def states(self, ids: Sequence[int]) -> Floats:
        """Of an encoder: the last layer's states [tokens, hidden]."""
        return self._run(ids, "last_hidden_state")

    def _run(self, ids: Sequence[int], output: str) -> Floats:
        import torch

        with _quiet(), torch.inference_mode():
            result = self._model(torch.tensor([list(ids)]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64))
        found: Floats = getattr(result, output)[0].numpy()
        return found


def require_exporter(config: Mapping[str, object], task: Task) -> None:
    """Refuse an architecture that transformers or optimum does not know for this task, before anything is read.

    Raises MissingExtra, UnknownFamily, or UnsupportedCheckpoint for an encoder that is to write text.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing has a reason to ask the network; read when they are imported
    try:
        with _quiet():
            import torch  # noqa: F401 - is it there?
            import transformers
            from optimum.exporters.onnx import export as _  # noqa: F401 - brings its table of architectures
            from optimum.exporters.tasks import TasksManager
    except ModuleNotFoundError as error:
        raise MissingExtra("export", str(error.name), "reference") from error
    model_type = str(config.get("model_type"))
    unknown = UnknownFamily(model_type, f"{', '.join(sorted(FAMILIES))}, and what optimum's exporter knows")
    try:
        known = TasksManager.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")
        config_class = transformers.CONFIG_MAPPING[model_type]
    except KeyError as error:
        raise unknown from error
    if _TASKS[task] in known and config_class in _classes(task):
        return
    if _TASKS["embed"] in known and config_class in _classes("embed"):
        raise UnsupportedCheckpoint(
            f"{model_type} writes no text, and without sentence-transformers' modules.json nothing says how vectors "
            "are made of its states"
        )
    raise unknown


def _classes(task: Task) -> Mapping[Any, Any]:
    """Model classes by configuration class."""
    import transformers

    found = transformers.MODEL_FOR_CAUSAL_LM_MAPPING if task == "generate" else transformers.MODEL_MAPPING
    return cast("Mapping[Any, Any]", found)


def _load(checkpoint: Checkpoint, task: Task) -> Any:  # noqa: ANN401 - transformers' classes are known at run time only
    import torch
    import transformers

    model_type = str(checkpoint.config.get("model_type"))
    config_class = transformers.CONFIG_MAPPING[model_type]
    facts = {key: value for key, value in checkpoint.config.items() if key not in ("auto_map", "quantization_config")}
    tensors = {
        name: torch.from_numpy(checkpoint.tensor(name))
        for name, info in checkpoint.names().items()
        if info.dtype not in _BUFFERS
    }
    try:
        config = config_class.from_dict(facts)
        config.use_cache = task == "generate"
        model, info = _classes(task)[config_class].from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the info names them
        )
    except Exception as error:  # as in write_graph
        raise UnsupportedCheckpoint(f"transformers cannot read it as {model_type}: {_first_line(error)}") from error
    _check_loaded(info, task, tensors, model)
    return model.eval()


def _check_loaded(info: Mapping[str, Any], task: Task, given: Mapping[str, Any], model: Any) -> None:  # noqa: ANN401 - as above
    """transformers fills what is missing with random numbers: here that is an error."""
    ignored = _HEADS if task == "embed" else ()
    for name in sorted(info["mismatched_keys"]):
        found = list(given[name].shape) if name in given else "another one"  # transformers may have renamed it
        raise ShapeMismatch(name, str(found), str(list(model.state_dict()[name].shape)))
    for name in sorted(info["missing_keys"]):
        if not name.startswith(ignored):
            raise MissingTensor(name)
    for name in sorted(info["unexpected_keys"]):
        if not name.startswith(ignored):
            raise UnexpectedTensor(name)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:400]


@contextmanager
def _quiet() -> Iterator[None]:
    """These libraries warn about themselves at length; what matters comes as an exception."""
    import logging

    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "torch.onnx")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
