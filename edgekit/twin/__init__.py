"""The INT8 twin of a decoder's weights: what `prefill.onnx.data` holds, and how it is made from a bundle.

Decoding wants few bytes per weight, reading a prompt wants integer products. A bundle carries the first; a device
derives the second from it: each matrix as INT8 with one scale per row. `layout` says which tensor comes from which,
`codes` has the arithmetic, `expand` reads and writes. The exporter uses the same code to check and to measure what
devices will compute. It is the only place of edgekit that needs numpy.
"""
