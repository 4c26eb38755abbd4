"""What no family knows goes through optimum's exporter: other decoders, and encoders for embeddings.

`route.py` is the main path and reads as a list of the rooms that it visits. Only `original.py` imports torch,
transformers and optimum (extra `reference`), and only when this route is taken; it holds the whole model
in memory, as those libraries do. No code of a model's publisher is ever run, and no file is read by other readers
than `export.checkpoints`.

    original.py   the model in torch: exported to a float graph, and asked what is right
    sentences.py  what a sentence-transformers folder says about pooling
    facts.py      sizes, read off the float graph
    sites.py      the constant matrices of a graph, and how each will be stored
    rewrite.py    the float graph with those matrices quantised
    graphs.py     running graphs, with a cache or without
    proof.py      the three comparisons that a bundle must pass, golden tokens and vectors
"""
