"""The engine: a bundle, token ids in, token ids and text out.

`session` is the only module that imports onnxruntime. It gives `rows`: texts in a model's cache, to read into and to
decode from. A request's way: `scheduler` (the one thread that owns the model, and the queue before it) -> `batch`
(those that run together, step by step) -> `sequence` (one of them: logits in, pieces of text out) -> `answers` (how
its reader gets them). What a batch decides, pure parts decide: `turns` (who is next, with how much), `costs` (what
steps take), `seats` and `prefixes` (which row, and what of earlier texts is still known), `drafting` (guessed tokens),
`sampling`, `text`. `records` crosses the borders.
"""
