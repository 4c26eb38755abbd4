"""Formats, facts and rules that the build side and the device side share.

Nothing here does numerics, opens a model or talks to a network. It may import the standard
library, msgspec (typed decoding of untrusted JSON), jinja2 (sandboxed chat templates) and, in
`cli` and `console` only, click. Neither `export` nor `device_agent` is ever imported from here.
"""

__version__ = "0.1.0"
