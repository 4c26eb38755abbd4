"""A LoRA that stands beside a bundle instead of being merged into it.

job.py       THE MAIN PATH: open the base and the PEFT folder -> convert -> write -> prove -> adapter.json
convert.py   PEFT's tensors as the inputs of the graph's branches
proof.py     base and adapter through onnxruntime, against merged weights in numpy
"""
