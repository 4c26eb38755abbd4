"""`edgekit bench`: how fast a bundle is here, beside how fast the memory is.

Everything goes through the engine that serves requests, without sampling and text. Nothing here opens a runtime.
"""
