"""Guesses from the text itself: prompt lookup decoding (Saxena 2023; LLMA, Yang et al. 2023)."""

from collections.abc import Iterator, Sequence

_SHORTEST = 2
"""Tokens that must agree before a guess is made."""
_LONGEST = 32
"""Agreement beyond this tells nothing more."""
_TRIES = 32
"""Places that are compared; bounds the time for a text that repeats itself."""


class NgramDrafter:
    """What followed where the newest tokens stood before: the place whose context agrees longest, the newest of equals.

    One request's; `ids` only grow between calls. Places are found by chains, as in
    LZ77 compressors: a table of the newest place of each pair of tokens, and for every place the one before it. So a
    token is indexed in constant time, once, and memory is a few words for each token of the context.
    """

    def __init__(self) -> None:
        self.match = 0
        """How many tokens agreed before the place of the newest proposal, up to 32; 0 if there was none."""
        self._newest: dict[tuple[int, int], int] = {}
        self._before: list[int] = [0, 0]  # for each position: the place before it with the same two tokens in front
        self._source = self._at = 0  # the newest proposal: from where, and what the length was

    def propose(self, ids: Sequence[int], most: int) -> Sequence[int]:
        """At most `most` guesses of what follows `ids`, prompt and answer so far; none if it has no idea.

        A source that reaches the end of the text is repeated: what came in circles goes on so.
        """
        self._index(ids)
        self._source, self.match = self._best(ids)
        self._at = len(ids)
        if not self.match:
            return ()
        period = len(ids) - self._source
        return [ids[self._source + i % period] for i in range(most)]

    def _index(self, ids: Sequence[int]) -> None:
        """Places up to the last token: what has no successor yet is no place."""
        for place in range(len(self._before), len(ids)):
            pair = (ids[place - 2], ids[place - 1])
            self._before.append(self._newest.get(pair, 0))
            self._newest[pair] = place

    def _best(self, ids: Sequence[int]) -> tuple[int, int]:
        """The place that most tokens agree in front of, and how many; (0, 0) if there is none."""
        best, longest = 0, 0
        for place in self._places(ids):
            agreeing = _agreeing(ids, place)
            if agreeing > longest:
                best, longest = place, agreeing
            if longest >= _LONGEST:
                break
        return (best, longest) if longest >= _SHORTEST else (0, 0)

    def _places(self, ids: Sequence[int]) -> Iterator[int]:
        """The place that is being copied, then those of the newest two tokens, the newest first."""
        if self.match:
            yield self._source + len(ids) - self._at
        place = self._newest.get((ids[-2], ids[-1]), 0) if len(ids) >= 2 else 0
        for _ in range(_TRIES):
            if not place:
                return
            yield place
            place = self._before[place]


def _agreeing(ids: Sequence[int], place: int) -> int:
    """How many tokens in front of `place` equal those at the end, up to `_LONGEST`."""
    count, end = 0, len(ids)
    while count < _LONGEST and count < place and ids[place - 1 - count] == ids[end - 1 - count]:
        count += 1
    return count
