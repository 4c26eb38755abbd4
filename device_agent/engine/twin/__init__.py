"""Reading prompts with the INT8 twin of a bundle's decoder (edgekit.twin): made once on this device, then opened.

`prepare` is the way through: `probe` asks how this processor multiplies bytes, `cachefile` makes the twin's weights in
the background and keeps them, `choose` measures from which length on they are worth it.
"""
