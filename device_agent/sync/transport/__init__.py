"""Where bytes come from: web servers, folders, sticks and tar files, as one source that goes on when one of them fails.

    open_source -> Mirrors -> HttpSource | FolderSource | TarSource

Nothing here believes what it reads: a source says whether it got an answer of the right shape, and whoever asked it
hashes. The rooms: `open` (from an address to a source), `mirrors` (which one next, and when), `web` (one GET), `http`
(a repository on web servers), `folder`, `tar`, `pace` (the least speed), `throttle` (the most, and the hours).
"""

from device_agent.sync.transport.open import open_source

__all__ = ["open_source"]
