"""Documents that were right, and are spoilt as a bad disk, a clumsy signer or a stranger would do it."""

import re

from hypothesis import strategies as st

ODD: tuple[bytes, ...] = (
    *(b"null", b"true", b"-1", b"0", b"1.5", b"1e999", b"-0", b"NaN", b"9" * 30, b"9" * 5000, b"18446744073709551616"),
    *(b"[]", b"{}", b"[[", b"]", b"[" * 3000, b'{"a":' * 3000, b'{"":""}'),
    *(
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xff",
        b"\xed\xa0\x80",
        b'"' + b"9" * 5000 + b'"',
        b'"' + b"a" * 2000 + b'"',
    ),
    *(b'"../x"', b'"/x"', b'"CON"', b'"2026-13-45T99:99:99Z"', b'"9999-12-31T23:59:59Z"', b'"0001-01-01T00:00:00Z"'),
)
"""In place of a value."""

_VALUE = re.compile(rb'(?<=:)\s*("(?:[^"\\]|\\.)*"|-?[0-9.]+|true|false|null)')


@st.composite
def spoilt(draw: st.DrawFn, raw: bytes) -> bytes:
    """`raw` with one to three faults: a bit, a piece that is gone or twice, an end too early, an odd value."""
    for _ in range(draw(st.integers(1, 3))):
        at, size = draw(st.integers(0, len(raw))), draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["bit", "gone", "twice", "end", "odd", "value", "value", "value"]))
        values = list(_VALUE.finditer(raw))
        if kind == "bit" and at < len(raw):
            raw = raw[:at] + bytes([raw[at] ^ 1 << draw(st.integers(0, 7))]) + raw[at + 1 :]
        elif kind == "gone":
            raw = raw[:at] + raw[at + size :]
        elif kind == "twice":
            raw = raw[: at + size] + raw[at:]
        elif kind == "end":
            raw = raw[:at]
        elif kind == "odd":
            raw = raw[:at] + draw(st.sampled_from(ODD)) + raw[at:]
        elif values:
            begin, end = draw(st.sampled_from(values)).span(1)
            raw = raw[:begin] + draw(st.sampled_from(ODD)) + raw[end:]
    return raw
