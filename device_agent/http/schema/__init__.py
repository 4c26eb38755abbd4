"""Request bodies to records. Pure: bytes in, a record or InvalidRequest out.

Strict on purpose. A parameter that would be ignored is refused by name, because a program that asks for something
and silently gets something else is the worse failure. Values that ask for nothing special are accepted for parameters
that are not supported, since clients send them by default.

    form.py       a route's parameters as a `Form`, and `read`, which every body goes through
    limits.py     every bound on what is sent
    sampling.py   the parameters that chat and completions share, and what they are checked against
    turns.py, tools.py, formats.py    parts of a chat
    chat.py, completions.py, embeddings.py, text.py    the routes
    table.py      the README's table of all that
"""
