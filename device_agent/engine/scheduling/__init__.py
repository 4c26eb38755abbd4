"""Who computes when: requests wait, join the batch, and are served a step of the model at a time.

scheduler (the one thread) -> batch (rows) -> turns (whose step is next, by costs) -> sequence (one request)
"""
