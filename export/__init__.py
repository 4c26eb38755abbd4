"""The build machine's side: a checkpoint goes in, a verified and quantised bundle comes out.

Start at `pipeline.py`: it names the rooms in the order an export visits them.
Nothing here is ever imported by `edgekit` or `device_agent`.
"""
