"""What to verify in a request's next step."""

from collections.abc import Callable, Sequence

from device_agent.engine.drafting.lengths import MOST_GUESSES, SOON, Cost, DraftLengths
from device_agent.engine.drafting.model import ModelDrafter
from device_agent.engine.drafting.ngram import NgramDrafter
from device_agent.engine.kept.prefixes import common


class Guesser:
    """What to verify in a request's next step: from its own text or from a smaller model, whichever promises more.

    Nobody needs to tell it what became of its guesses: the next call sees the text. So it also learns from guesses
    that were not worth verifying, which cost nothing, and notices at once where a text begins to repeat another one.
    """

    def __init__(self, model: ModelDrafter | None = None) -> None:
        self._text = NgramDrafter()
        self._text_lengths = DraftLengths()
        self._model = model
        self._model_lengths = DraftLengths()
        self._watch: Callable[[Sequence[int]], None] = lambda _: None

    def guess(self, ids: Sequence[int], *, room: int, cost: Cost) -> Sequence[int]:
        """At most `room` guesses of what follows `ids` (prompt and answer); none where a plain step is faster.

        `cost` is that of a step of the model that is to verify them.
        """
        self._watch(ids)
        self._watch = lambda _: None
        room = min(room, MOST_GUESSES)
        if room < 1:
            return ()
        found = self._text.propose(ids, room)
        match = self._text.match
        count, rate = self._text_lengths.best(cost, match=match) if found else (0, 1 / max(cost(1), SOON))
        if self._model and (drafts := self._from_model(self._model, ids, room=room, cost=cost, needed=rate)):
            self._watch = _watch(self._model_lengths, len(ids), drafts, match=0)
            return drafts
        drafts = found[:count]
        # One more than is verified: the model chooses one more token than that, and comparing costs nothing.
        self._watch = _watch(self._text_lengths, len(ids), found[: count + 1], match=match)
        return drafts

    def _from_model(
        self, model: ModelDrafter, ids: Sequence[int], *, room: int, cost: Cost, needed: float
    ) -> Sequence[int]:
        def whole(tokens: int) -> float:
            return cost(tokens) + (tokens - 1) * model.guess_s

        count, rate = self._model_lengths.best(whole)
        if not count:
            count = self._model_lengths.most(whole)  # perhaps it is time for a trial
        elif rate <= needed:
            return ()
        return model.propose(ids, min(count, room))


def _watch(lengths: DraftLengths, at: int, guesses: Sequence[int], *, match: int) -> Callable[[Sequence[int]], None]:
    """Learns from what came at `at` instead of the guesses, once the text has it."""

    def learn(ids: Sequence[int]) -> None:
        came = ids[at : at + len(guesses)]
        accepted = common(guesses, came)
        lengths.note(len(guesses) if accepted < len(came) else accepted, accepted, match=match)

    return learn
