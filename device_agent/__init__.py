"""The device side: runs bundles, serves them on localhost. Never needs torch, transformers, onnx or `export`.

`Model` (or `EmbeddingModel`) is all that a field app needs; `app` is the agent that `edgekit serve` starts.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_agent.model import EmbeddingModel, Model

__all__ = ["EmbeddingModel", "Model"]


def __getattr__(name: str) -> object:
    """`Model` when somebody asks for it: `edgekit inspect` imports this package too, and needs no onnxruntime."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from device_agent import model

    found: object = getattr(model, name)
    return found
