"""What operators see: whether the agent is well, how fast it is, what it has done, and what the machine feels like.

`health` and `speeds` are rules, `metrics` counts for Prometheus, `device` is the report of this machine; `Watch` puts
them behind the routes (`Operations` in device_agent/http/services.py). Nothing here has a thread of its own: everything
is read when somebody asks.
"""

from device_agent.operations.watch import Watch

__all__ = ["Watch"]
