"""Texts that are kept for those that begin as they did: in their rows, beside them, and on disk."""
