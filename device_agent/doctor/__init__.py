"""`edgekit doctor`: what is wrong here, and what to do about it.

machine.py   facts of this machine to findings: pure rules, and one probe that gathers the facts
updates.py   what the device follows, and how it fared: likewise
agent.py     a running agent, asked what client libraries ask it, and held to what they depend on
cli.py       the verb
"""
