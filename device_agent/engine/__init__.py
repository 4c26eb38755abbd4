"""The engine: a bundle, token ids in, token ids and text out.

`session` is the only module that imports onnxruntime. `generate` knows ids, not text; `text` knows
text, not HTTP; `scheduler` is the one thread that owns the model. `records` crosses the borders.
"""
