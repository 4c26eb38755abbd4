"""Two graphs are held against each other before a byte is written: either may lie."""

import dataclasses
from collections.abc import Callable

import pytest

from edgekit import contract
from edgekit.onnxfile import ExternalTensor
from edgekit.twin.layout import Copied, Expanded, after, layout_of

FLOAT, UINT8, INT8 = 1, 2, 3
SIZES = {FLOAT: 4, UINT8: 1, INT8: 1}
Tensors = list[ExternalTensor]
ROWS, COLUMNS = 6, 64
SPECS = {"a": "int4-b32", "b": "int8-b32", "c": "int4-b32-affine", "f": "fp32", "embed": "int8-b32"}


def placed(location: str, *tensors: tuple[str, int, tuple[int, ...]]) -> Tensors:
    """Tensors one behind the other."""
    found, end = [], 0
    for name, kind, shape in tensors:
        length = SIZES[kind]
        for size in shape:
            length *= size
        found.append(ExternalTensor(name, location, after(end), length, kind, shape))
        end = after(end) + length
    return found


DECODER = placed(
    contract.DATA_FILE,
    ("embed.weight", UINT8, (10, COLUMNS)),
    ("norm", FLOAT, (COLUMNS,)),
    ("a.weight", UINT8, (ROWS, 2, 16)),
    ("a.scales", FLOAT, (ROWS, 2)),
    ("b.weight", UINT8, (ROWS, 2, 32)),
    ("b.scales", FLOAT, (ROWS, 2)),
    ("c.weight", UINT8, (ROWS, 3, 16)),  # 66 columns: two of constants
    ("c.scales", FLOAT, (ROWS, 3)),
    ("c.zero_points", UINT8, (ROWS, 2)),
    ("f.weight", FLOAT, (ROWS, COLUMNS)),
    ("f.scales", FLOAT, (ROWS, 2)),
)
PROMPT = placed(
    contract.PREFILL_DATA,
    ("embed.weight", UINT8, (10, COLUMNS)),
    *(
        part
        for name in "abc"
        for part in ((f"{name}.int8", INT8, (COLUMNS, ROWS)), (f"{name}.row_scales", FLOAT, (ROWS,)))
    ),
    ("norm", FLOAT, (COLUMNS,)),
)
DATA_BYTES = DECODER[-1].offset + 48


def changed(tensors: Tensors, name: str, **fields: object) -> Tensors:
    assert any(tensor.name == name for tensor in tensors)
    return [dataclasses.replace(t, **fields) if t.name == name else t for t in tensors]  # type: ignore[arg-type]


def test_what_a_matrix_and_a_norm_become() -> None:
    layout = layout_of(DECODER, PROMPT, SPECS, data_bytes=DATA_BYTES)
    offsets = {tensor.name: tensor.offset for tensor in DECODER}
    targets = {tensor.name: tensor.offset for tensor in PROMPT}
    assert layout.size_bytes == PROMPT[-1].offset + 4 * COLUMNS
    assert [part.name for part in layout.parts] == ["embed.weight", "a", "b", "c", "norm"]
    assert layout.parts[4] == Copied("norm", targets["norm"], offsets["norm"], 4 * COLUMNS)
    found = layout.parts[3]
    assert isinstance(found, Expanded)
    assert (found.spec.name, found.rows, found.columns) == ("int4-b32-affine", ROWS, COLUMNS)
    assert (found.codes_offset, found.scales_offset) == (targets["c.int8"], targets["c.row_scales"])
    assert (found.stored, found.stored_scales) == (offsets["c.weight"], offsets["c.scales"])
    assert found.stored_zero_points == offsets["c.zero_points"]
    plain = layout.parts[1]
    assert isinstance(plain, Expanded)
    assert plain.stored_zero_points is None


def without(tensors: Tensors, name: str) -> Tensors:
    return [tensor for tensor in tensors if tensor.name != name]


HUGE = 1 << 40
Graphs = tuple[Tensors, Tensors]
LIES: dict[str, Callable[[], Graphs]] = {
    "a name twice in the prompt's": lambda: (DECODER, [*PROMPT, PROMPT[0]]),
    "a name twice in the decoder's": lambda: ([*DECODER, DECODER[0]], PROMPT),
    "another file": lambda: (DECODER, changed(PROMPT, "norm", location="/etc/passwd")),
    "the decoder in another file": lambda: (changed(DECODER, "norm", location="x"), PROMPT),
    "a gap": lambda: (DECODER, changed(PROMPT, "norm", offset=PROMPT[-1].offset + 64)),
    "an overlap": lambda: (DECODER, changed(PROMPT, "norm", offset=0)),
    "a length that is not the shape's": lambda: (DECODER, changed(PROMPT, "norm", length=8)),
    "no length": lambda: (DECODER, changed(PROMPT, "norm", length=None)),
    "beyond the data's end": lambda: (changed(DECODER, "norm", offset=DATA_BYTES), PROMPT),
    "before the data": lambda: (changed(DECODER, "norm", offset=-64), PROMPT),
    "an empty dimension": lambda: (DECODER, changed(PROMPT, "norm", shape=(0, COLUMNS), length=0)),
    "an absurd shape": lambda: (DECODER, changed(PROMPT, "norm", shape=(HUGE, HUGE), length=4 * HUGE * HUGE)),
    "an absurd rank": lambda: (DECODER, changed(PROMPT, "norm", shape=(1,) * 999 + (COLUMNS,))),
    "an unknown type": lambda: (DECODER, changed(PROMPT, "norm", kind=9)),
    "a norm of another length": lambda: (
        changed(DECODER, "norm", shape=(8, 8)),
        PROMPT,
    ),
    "a norm that the decoder lacks": lambda: (without(DECODER, "norm"), PROMPT),
    "a matrix that the decoder lacks": lambda: (without(DECODER, "a.weight"), PROMPT),
    "scales that the decoder lacks": lambda: (without(DECODER, "a.scales"), PROMPT),
    "zero points that the decoder lacks": lambda: (without(DECODER, "c.zero_points"), PROMPT),
    "a matrix of another shape": lambda: (changed(DECODER, "a.weight", shape=(ROWS, 1, 32)), PROMPT),
    "a matrix of another type": lambda: (
        changed(DECODER, "a.weight", kind=INT8),
        PROMPT,
    ),
    "rows without scales": lambda: (DECODER, [PROMPT[0], PROMPT[1]]),
    "scales without rows": lambda: (
        DECODER,
        placed(contract.PREFILL_DATA, ("a.row_scales", FLOAT, (ROWS,))),
    ),
    "scales before their rows": lambda: (
        DECODER,
        placed(contract.PREFILL_DATA, ("a.row_scales", FLOAT, (ROWS,)), ("a.int8", INT8, (COLUMNS, ROWS))),
    ),
    "a matrix that the recipe does not name": lambda: (
        DECODER,
        placed(contract.PREFILL_DATA, ("z.int8", INT8, (COLUMNS, ROWS)), ("z.row_scales", FLOAT, (ROWS,))),
    ),
    "a float matrix": lambda: (
        DECODER,
        placed(contract.PREFILL_DATA, ("f.int8", INT8, (COLUMNS, ROWS)), ("f.row_scales", FLOAT, (ROWS,))),
    ),
    "codes that are no matrix": lambda: (
        DECODER,
        placed(contract.PREFILL_DATA, ("a.int8", INT8, (COLUMNS * ROWS,)), ("a.row_scales", FLOAT, (ROWS,))),
    ),
    "unsigned codes": lambda: (
        DECODER,
        placed(contract.PREFILL_DATA, ("a.int8", UINT8, (COLUMNS, ROWS)), ("a.row_scales", FLOAT, (ROWS,))),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_graphs_that_do_not_belong_together_are_refused(lie: str) -> None:
    decoder, prompt = LIES[lie]()
    with pytest.raises(ValueError, match=r"\w"):
        layout_of(decoder, prompt, SPECS, data_bytes=DATA_BYTES)


def test_a_graph_that_would_fill_the_disk_is_refused() -> None:
    """Many names for the same bytes."""
    names = [f"norm{number}" for number in range(9)]
    kinds: list[tuple[str, int, tuple[int, ...]]] = [(name, FLOAT, (16,)) for name in names]
    decoder = [dataclasses.replace(tensor, offset=0) for tensor in placed(contract.DATA_FILE, *kinds)]
    prompt = placed(contract.PREFILL_DATA, *kinds)
    layout_of(decoder, prompt[:3], {}, data_bytes=64)
    with pytest.raises(ValueError, match="does not fit"):
        layout_of(decoder, prompt, {}, data_bytes=64)
