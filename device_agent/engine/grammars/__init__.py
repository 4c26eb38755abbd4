"""Answers of a given form.

guide    which tokens may come next, by llguidance
trial    every new grammar is tried first, in a process of its own (child): a hostile one hangs that one
"""
