"""What is on disk: releases whole and verified, which of them is active, and which may go.

    sync/releases/<release>.<digest>/   the files of one release, read only, and `.release.json`, its signed manifest
    sync/staging/<release>.<digest>/    one that is being fetched
    sync/trash/                         what is being deleted
    sync/state.0, state.1               the record (edgekit.slots): State
    sync/leases/                        who has a release open
    sync/lock                           of the one updater

A folder gets its place in releases/ by one rename, after every byte in it was fsynced and hashed: what is there is
whole.
"""
