"""The sync link: a device pulls what its owner signed, over bad networks or a stick, and always has one that works.

    schedule due -> trust.refresh -> channel decides -> content.plan -> space -> content.stage -> releases.admit
                 -> activation: trial -> health -> switch -> soak -> commit; any failure keeps what is active

`link` is that path; `judging` the rules of what a channel means here; `passes` one pass under the lock, with its
bookkeeping; `upkeep` passes in the agent, when `schedule` says so; `cli` passes by hand.

Rooms: `trust` (python-tuf, made durable), `transport` (where bytes come from), `content` (which bytes are needed, and
putting them together), and beside this room `releases` (what is on disk) and `activation` (what serves).
"""
