"""The device side: runs bundles, serves them on localhost. Never needs torch, transformers, onnx or `export`.

`Model` (or `EmbeddingModel`) is all that a field app needs; `app` is the agent that `edgekit serve` starts.
"""

from device_agent.model import EmbeddingModel, Model

__all__ = ["EmbeddingModel", "Model"]
