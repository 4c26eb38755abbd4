"""Who may use the agent, and how much: keys, scopes and quotas.

`keys` and `limits` are rules without IO; `keyfile` keeps keys on disk; `gate` is what the HTTP room asks. Tokens of a
day are counted by the ledger (device_agent/ledger).
"""
