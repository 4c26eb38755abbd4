"""Which bytes a release needs, and putting them together: a plan without IO, and what carries it out.

    have    what is on this device already: chunks and whole files of the installed releases
    plan    pure: the cheapest way to each chunk, reads merged into ranges, what it costs
    stage   files in the staging folder, chunk by chunk, each hashed before it is written; goes on where it left off
    seal    everything on the disk, read again from there, held against what was signed
    repair  files of an installed release that the disk lost
    journal which chunks a staging folder is said to hold
    disk    files inside of one folder, and what the disk's errors mean

Nothing of a release is believed before it was hashed: not what comes from a repository, not what a difference gave, and
not what an installed release is said to hold.
"""

from device_agent.sync.content.have import Have, Local
from device_agent.sync.content.plan import Plan, plan
from device_agent.sync.content.repair import repair
from device_agent.sync.content.seal import seal
from device_agent.sync.content.stage import stage

__all__ = ["Have", "Local", "Plan", "plan", "repair", "seal", "stage"]
