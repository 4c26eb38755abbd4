"""Texts to vectors: tokens in batches, an encoder's states, and one vector for each text.

A batch holds texts of similar length, so that little is spent on padding; rows do not see each other, and
a text's vector does not depend on its company (but for the last bits of a sum).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tokenizers

from edgekit import contract
from edgekit.errors import ContextOverflow, InvalidRequest
from edgekit.manifest import Embedding

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Encode = Callable[[Mapping[str, Ids]], Floats]
"""Feeds, each [rows, tokens], to states [rows, tokens, width]."""

MAX_BATCH_TOKENS = 4096
"""Rows times their length, padding included: bounds the memory of a batch, and is enough for full speed."""


class Embedder:
    """Vectors of texts, as the manifest's `embedding` says. `inputs` are those that the graph has."""

    def __init__(
        self,
        encode: Encode,
        tokenizer: tokenizers.Tokenizer,
        embedding: Embedding,
        *,
        inputs: frozenset[str],
        vocab: int,
    ) -> None:
        tokenizer.no_padding()  # a tokenizer.json may ask for both, with lengths of its author's own
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # control tokens in a text are text
        self._encode = encode
        self._tokenizer = tokenizer
        self._embedding = embedding
        self._inputs = inputs
        self._vocab = vocab

    def tokens(self, text: str, *, truncate: bool = False) -> tuple[int, ...]:
        """Ids of a text with those that the tokenizer puts around it.

        Raises ContextOverflow if they are too many and `truncate` does not cut them, InvalidRequest for no tokens.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=True)
        limit = self._embedding.max_tokens
        if len(encoding.ids) > limit:
            if not truncate:
                raise ContextOverflow(len(encoding.ids), limit)
            around = self._tokenizer.num_special_tokens_to_add(is_pair=False)
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            encoding.truncate(max(1, limit - around))
            encoding = self._tokenizer.post_process(encoding, None, add_special_tokens=True)
        ids = tuple(encoding.ids)
        if not ids:
            raise InvalidRequest("A text without any token has no vector.", param="input")
        if max(ids) >= self._vocab:  # a table of embeddings may be read without a check
            raise InvalidRequest(f"The tokenizer makes the id {max(ids)}, which the model does not have.")
        return ids

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> Floats:
        """Vectors [texts, dimension]. Raises what `tokens` raises, and BundleError if onnxruntime fails."""
        return self.embed_tokens([self.tokens(text, truncate=truncate) for text in texts])

    def embed_tokens(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Vectors [rows, dimension] of token ids, in the order that they were given."""
        vectors = np.empty((len(rows), self._embedding.dimension), np.float32)
        for batch in batches([len(row) for row in rows]):
            vectors[batch] = self._vectors([rows[at] for at in batch])
        return vectors

    def _vectors(self, rows: Sequence[Sequence[int]]) -> Floats:
        lengths = np.asarray([len(row) for row in rows])
        mask = (np.arange(lengths.max())[None] < lengths[:, None]).astype(np.int64)
        ids = np.zeros_like(mask)
        ids[mask == 1] = np.concatenate([np.asarray(row, np.int64) for row in rows])
        feeds: dict[str, Ids] = {
            contract.INPUT_IDS: ids,
            contract.ATTENTION_MASK: mask,
            contract.SEGMENT_IDS: np.zeros_like(mask),
            contract.POSITION_IDS: np.broadcast_to(np.arange(mask.shape[1]), mask.shape).copy(),
        }
        states = self._encode({name: feeds[name] for name in feeds.keys() & self._inputs})
        return pooled(states, lengths, self._embedding)


def batches(lengths: Sequence[int], *, max_tokens: int = MAX_BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices of texts of similar length, at most `max_tokens` with their padding (or one text) at a time."""
    batch: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):  # the newest one is the longest
        if batch and (len(batch) + 1) * lengths[at] > max_tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def pooled(states: Floats, lengths: npt.NDArray[np.int64], embedding: Embedding) -> Floats:
    """States [rows, tokens, width] of texts of these lengths to vectors [rows, width]."""
    if embedding.pooling == "cls":
        vectors: Floats = states[:, 0]
    elif embedding.pooling == "last":
        vectors = states[np.arange(len(states)), lengths - 1]
    else:
        present = np.arange(states.shape[1])[None] < lengths[:, None]
        # `where` and not a product with the mask: what stands in padding may be no number.
        vectors = np.where(present[..., None], states, np.float32(0)).sum(1) / lengths[:, None].astype(np.float32)
    if embedding.normalise:
        # The smallest length is torch.nn.functional.normalize's.
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return vectors.astype(np.float32, copy=False)
