"""The models of this device: found in a folder, loaded when somebody asks, put away when memory or time says so.

    a folder -> scan: entries and faults -> Shelf: cards (what there is), leases (who uses it)
             -> opening: a bundle in memory

A shelf is a bundle served alone, or a folder of bundles. It reads no request and knows no HTTP; to the routes it is
`Models` (device_agent/http/services.py). One thread loads and closes models, one at a time: loading takes all cores
and much memory, so two loads together would take as long and need more. Requests wait for theirs; those for models
that are loaded do not. A model is never closed while somebody holds a lease of it.
"""

from device_agent.shelf.records import Entry, Fault, Found, Opened, ShelfSettings, Standing, Tally
from device_agent.shelf.shelf import Shelf

__all__ = ["Entry", "Fault", "Found", "Opened", "Shelf", "ShelfSettings", "Standing", "Tally"]
