"""From ModelArch and weights to an ONNX graph.

`ops` writes nodes and weight bytes, `blocks` are functions from values to values (norm, linear,
attention, MLP, LM head), `decoder` strings them together. Nothing here knows a model family.
"""
