"""Where templates of strangers run: jinja2's immutable sandbox, with a budget of time and memory for each rendering.

The sandbox keeps a template from what it must not touch; it does not keep it from never ending, or from a string of a
billion characters. So everything that can take long or grow is counted or measured first: passes of loops, calls,
statements (`metering.py` puts counters into the syntax tree), operators, methods and filters (`growth.py` knows how
large their results may be, `environment.py` asks). Nothing is timed: whether a template is refused does not depend on
the machine.
"""
