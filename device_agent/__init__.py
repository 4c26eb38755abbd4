"""The device side: runs bundles, serves them on localhost. Never needs torch, transformers, onnx or `export`.

`Model` is all that a field app needs; `app` is the agent that `edgekit serve` starts.
"""

from device_agent.model import Model

__all__ = ["Model"]
