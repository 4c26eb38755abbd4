"""From a release on disk to one that serves: trial in a process of its own, health, switch, soak, commit, or back.

The one that is active serves until the new one has passed. Tries are counted on disk before each start, so that a
release that kills its process, or the machine, is given up after two.
"""

from device_agent.activation.activation import Activation
from device_agent.activation.records import Probe, Switch, Unserved, Verdict

__all__ = ["Activation", "Probe", "Switch", "Unserved", "Verdict"]
