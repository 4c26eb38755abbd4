"""Texts to vectors: batching, pooling and limits, over an encoder that is a formula."""

from collections.abc import Mapping

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, processors

from device_agent.engine import embed
from device_agent.engine.embed import Embedder, batches, pooled
from edgekit.errors import ContextOverflow, InvalidRequest
from edgekit.manifest import Embedding

VOCAB = 20
WIDTH = 4
FACTS = Embedding(pooling="mean", normalise=False, max_tokens=8, dimension=WIDTH)
MEAN = FACTS
CLS = Embedding(pooling="cls", normalise=False, max_tokens=8, dimension=WIDTH)
LAST = Embedding(pooling="last", normalise=False, max_tokens=8, dimension=WIDTH)
UNIT = Embedding(pooling="mean", normalise=True, max_tokens=8, dimension=WIDTH)
FIRST, END, UNKNOWN = 0, 1, 2


def tokenizer(*, specials: bool = True) -> tokenizers.Tokenizer:
    """Words a b c ... are ids from 3; [A] before and [Z] after, if `specials`. It pads and cuts by itself, wrongly."""
    vocab = {"[A]": FIRST, "[Z]": END, "?": UNKNOWN} | {chr(ord("a") + i): 3 + i for i in range(26)}
    made = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["[A]", "[Z]"])
    if specials:
        made.post_processor = processors.TemplateProcessing(
            single="[A] $A [Z]", special_tokens=[("[A]", FIRST), ("[Z]", END)]
        )
    made.enable_padding(length=6)
    made.enable_truncation(5)
    return made


class Formula:
    """States that tell id and position; padding is not a number, so that nothing can use it unnoticed."""

    def __init__(self) -> None:
        self.feeds: list[Mapping[str, NDArray[np.int64]]] = []

    def __call__(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        self.feeds.append(feeds)
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        position = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        states = np.stack([ids, position, ids * ids, np.ones_like(ids)], axis=-1).astype(np.float32)
        states[mask == 0] = np.nan
        return states


def embedder(facts: Embedding = FACTS, *, specials: bool = True, inputs: frozenset[str] | None = None) -> Embedder:
    names = frozenset({"input_ids", "attention_mask"}) if inputs is None else inputs
    return Embedder(Formula(), tokenizer(specials=specials), facts, inputs=names, vocab=VOCAB)


def test_tokens_have_the_special_ones_around_them_and_no_padding() -> None:
    assert embedder().tokens("a b") == (FIRST, 3, 4, END)


def test_a_control_token_in_a_text_is_text() -> None:
    assert embedder().tokens("a[Z]b") == (FIRST, UNKNOWN, END)


def test_a_text_that_is_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(ContextOverflow) as refused:
        embedder().tokens("a b c d e f g")
    assert (refused.value.prompt_tokens, refused.value.context_tokens) == (9, 8)


def test_a_text_may_fill_the_limit_and_can_be_cut_to_it() -> None:
    assert embedder().tokens("a b c d e f") == (FIRST, 3, 4, 5, 6, 7, 8, END)
    assert embedder().tokens("a b c d e f g h", truncate=True) == (FIRST, 3, 4, 5, 6, 7, 8, END)
    assert embedder(specials=False).tokens("a b c d e f g h i", truncate=True) == tuple(range(3, 11))


def test_a_text_of_no_token_has_no_vector() -> None:
    assert embedder().tokens("") == (FIRST, END)
    with pytest.raises(InvalidRequest, match="without any token"):
        embedder(specials=False).tokens("")


def test_an_id_that_the_model_does_not_have_never_reaches_it() -> None:
    with pytest.raises(InvalidRequest, match="the id 28"):
        embedder().embed(["a", "z"])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (MEAN, [(FIRST + 3 + 4 + END) / 4, 1.5, (9 + 16 + 1) / 4, 1]),
        (CLS, [FIRST, 0, 0, 1]),
        (LAST, [END, 3, 1, 1]),
    ],
    ids=["mean", "cls", "last"],
)
def test_pooling_is_what_the_manifest_says(facts: Embedding, expected: list[float]) -> None:
    vectors = embedder(facts).embed(["a b", "a b c d e"])  # the second one brings padding to the first
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], expected, rtol=1e-6)


def test_normalised_vectors_have_length_1() -> None:
    vectors = embedder(UNIT).embed(["a", "b c d", "e f"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_vector_of_zeros_stays_one() -> None:
    zeros = pooled(np.zeros((1, 2, WIDTH), np.float32), np.array([2]), UNIT)
    assert not zeros.any()


def test_optional_inputs_are_fed_where_the_graph_has_them() -> None:
    encode = Formula()
    names = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
    Embedder(encode, tokenizer(), FACTS, inputs=names, vocab=VOCAB).embed(["a", "b c"])
    (feeds,) = encode.feeds
    assert set(feeds) == names
    assert not feeds["token_type_ids"].any()
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3]] * 2
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@given(st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=8), max_size=12), st.integers(1, 20))
def test_a_vector_does_not_depend_on_its_company(rows: list[list[int]], max_tokens: int) -> None:
    made = embedder()
    original = embed.batches
    together = made.embed_tokens(rows)
    assert together.shape == (len(rows), WIDTH)
    for row, vector in zip(rows, together, strict=True):
        np.testing.assert_allclose(vector, made.embed_tokens([row])[0], rtol=1e-6)
    cut = list(original([len(row) for row in rows], max_tokens=max_tokens))
    assert sorted(at for batch in cut for at in batch) == list(range(len(rows)))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(len(rows[at]) for at in batch) <= max_tokens


def test_texts_of_similar_length_share_a_batch() -> None:
    assert list(batches([1, 100, 2, 99], max_tokens=200)) == [[0, 2], [3, 1]]
