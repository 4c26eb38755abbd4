"""A graph is used only if its inputs and outputs are those that the manifest promises."""

import pytest

from device_agent.engine.graphs import signature
from device_agent.engine.graphs.signature import GraphValue, Signature
from edgekit.arch import ModelArch

ARCH = ModelArch(
    model_type="any",
    block="opaque",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=128,
    vocab=320,
    context=128,
    norm_eps=0.0,
    rotary=None,
    activation="gelu",
    tied=False,
)
IDS = "tensor(int64)"
FLOATS = "tensor(float)"
CACHE, CODES = (
    [
        GraphValue(f"{kind}.{layer}.{half}", values, ("batch", 2, "length", 16))
        for layer in range(2)
        for half in ("key", "value")
        for kind in ("past_key_values", "present")
    ]
    for values in (FLOATS, "tensor(int8)")
)
TOKENS = [GraphValue(name, IDS, ("batch", "sequence")) for name in ("input_ids", "attention_mask")]
LOGITS = GraphValue("logits", FLOATS, ("batch", "kept", 320))
KEEP = GraphValue("logits_to_keep", IDS, ())
POSITIONS = GraphValue("position_ids", IDS, ("batch", "sequence"))
SEGMENTS = GraphValue("token_type_ids", IDS, ("batch", "sequence"))
STATES = GraphValue("last_hidden_state", FLOATS, ("batch", "sequence", 64))
DECODER = [*TOKENS, *CACHE, LOGITS]

FITTING = {
    "shared": (signature.shared(ARCH), [*DECODER, KEEP]),
    "shared, int8": (signature.shared(ARCH, "int8"), [*TOKENS, *CODES, LOGITS, KEEP]),
    "concat": (signature.concat(ARCH), DECODER),
    "concat with positions": (signature.concat(ARCH), [*DECODER, POSITIONS]),
    "concat with all": (signature.concat(ARCH), [*DECODER, POSITIONS, KEEP]),
    "prompt": (signature.prompt(ARCH), [*TOKENS, *CACHE]),
    "prompt, int8": (signature.prompt(ARCH, "int8"), [*TOKENS, *CODES]),
    "encoder": (signature.encoder(ARCH), [*TOKENS, STATES]),
    "encoder with segments and positions": (signature.encoder(ARCH), [*TOKENS, SEGMENTS, POSITIONS, STATES]),
}


def changed(values: list[GraphValue], name: str, new: GraphValue) -> list[GraphValue]:
    return [new if value.name == name else value for value in values]


WRONG = {
    "shared without a choice of logits": (signature.shared(ARCH), DECODER, "inputs and outputs"),
    "shared with positions instead": (signature.shared(ARCH), [*DECODER, POSITIONS], "no 'logits_to_keep'"),
    "a prompt graph that makes logits": (signature.prompt(ARCH), DECODER, "inputs and outputs"),
    "a cache too few": (signature.concat(ARCH), [*TOKENS, *CACHE[:-1], LOGITS], "inputs and outputs"),
    "segments in a decoder": (signature.concat(ARCH), [*DECODER, SEGMENTS], "'token_type_ids'"),
    "a cache of another layer": (
        signature.concat(ARCH),
        changed(DECODER, "present.1.key", GraphValue("present.9.key", FLOATS, (1, 2, 3, 16))),
        "no 'present.1.key'",
    ),
    "a wider cache": (
        signature.concat(ARCH),
        changed(DECODER, "present.1.key", GraphValue("present.1.key", FLOATS, ("b", 4, "l", 16))),
        "present.1.key is tensor(float) ['b', 4, 'l', 16]",
    ),
    "a cache of another type": (
        signature.concat(ARCH),
        changed(DECODER, "past_key_values.0.key", GraphValue("past_key_values.0.key", IDS, ("b", 2, "l", 16))),
        "past_key_values.0.key",
    ),
    "codes for floats": (signature.shared(ARCH), [*TOKENS, *CODES, LOGITS, KEEP], "is tensor(int8)"),
    "floats for codes": (signature.shared(ARCH, "int8"), [*DECODER, KEEP], "is tensor(float)"),
    "codes in a copied cache": (signature.concat(ARCH), [*TOKENS, *CODES, LOGITS], "is tensor(int8)"),
    "another vocabulary": (
        signature.concat(ARCH),
        changed(DECODER, "logits", GraphValue("logits", FLOATS, ("b", "s", 321))),
        "logits",
    ),
    "states of another width": (
        signature.encoder(ARCH),
        [*TOKENS, GraphValue("last_hidden_state", FLOATS, ("b", "s", 65))],
        "last_hidden_state",
    ),
    "states without a width": (
        signature.encoder(ARCH),
        [*TOKENS, GraphValue("last_hidden_state", FLOATS, ("b", "s", "w"))],
        "last_hidden_state",
    ),
    "an encoder with logits": (signature.encoder(ARCH), [*TOKENS, LOGITS], "no 'last_hidden_state'"),
    "an encoder with an output more": (signature.encoder(ARCH), [*TOKENS, STATES, LOGITS], "it has 'logits'"),
}


@pytest.mark.parametrize("name", FITTING)
def test_a_graph_as_promised_has_no_problem(name: str) -> None:
    wanted, given = FITTING[name]
    assert wanted.problem(given) == ""


@pytest.mark.parametrize("name", WRONG)
def test_a_departure_is_named(name: str) -> None:
    wanted, given, words = WRONG[name]
    assert words in wanted.problem(given)


def test_absurdly_many_layers_cost_nothing() -> None:
    absurd = Signature({}, {}, layers=1 << 60)
    assert "inputs and outputs" in absurd.problem(DECODER)
