"""The ledger of tokens: one row for each request that was served, and sums of them by day, key, model and adapter.

`ledger` takes notes and writes them on a thread of its own; `database` is the file (SQLite); `report` adds up, `prices`
says what it costs, `export` writes it down for others; `days` says when a day begins. No text of a prompt or an answer
is kept unless the settings say so.
"""
