"""Releases: what a build machine signs and a device pulls. Formats and rules, without IO.

A **repository** is a folder of plain files, which any web server, object store, registry or USB stick can carry:

    metadata/timestamp.json, N.root.json, N.snapshot.json, N.targets.json, N.releases.json, N.rollout.json
    targets/releases/<sha256>.<release>.json         release manifest   (role `releases`: what may ever run)
    targets/channels/<sha256>.<channel>.json         channel file       (role `rollout`: who gets what now)
    targets/deltas/<sha256>.<base>..<release>.json   delta index        (role `rollout`: a hint only)
    packs/ab/<sha256>.pack                           chunks end to end, at most 32 MiB, immutable

Metadata is TUF 1.0.34 with consistent snapshots. The top-level `targets` role delegates `releases/*` to `releases` and
`channels/*`, `deltas/*` to `rollout`. A device runs what its channel names only if `releases` lists it too: who steals
the build machine's key can choose among releases that were signed with the other key, above a floor that it signed.

The rooms: `names` (the grammar of every path), `manifest`, `channel`, `delta` (formats), `codec` (bytes of a chunk),
`provisioning` (what a device is told before it trusts anything), `reports` (what it says of itself).
"""
