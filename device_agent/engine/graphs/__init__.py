"""The bundle's graphs on onnxruntime: sessions, and rows of cached tokens over them (engine/rows.py).

`session` alone imports onnxruntime. It hands out rows of the kind that the manifest says: shared, longrope or concat.
"""
