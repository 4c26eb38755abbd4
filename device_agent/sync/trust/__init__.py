"""What may be trusted: TUF's client workflow by python-tuf, made durable, and what it says about releases and channels.

python-tuf's `Updater` decides everything about signatures and versions. Around it are here what it leaves to others:

- It works in a folder that is its own: **generations**, each a copy of the one before, fsynced as a whole before the
  record names it. One that is damaged is noticed by its digest, and the one before it takes over, which is reported.
- **Floors** in a record of two slots: the versions that were accepted, by role and keys, so that a device whose files
  were lost or put back does not believe an old repository.
- A **clock** that never goes back behind what was signed.
- Bounds on everything before python-tuf parses it (`wire`).

    trust/gen-N/          timestamp.json, snapshot.json, targets.json, releases.json, rollout.json, root_history/
    trust/record.0, .1    which generations there are, floors, clock
    trust/targets/        channel files and manifests by SHA-256, a cache that is verified at each use

`metadata` knows TUF and nothing of this product's roles; `trust` makes Views of it; `record` are the rules without IO.
"""

from device_agent.sync.trust.trust import Trust

__all__ = ["Trust"]
