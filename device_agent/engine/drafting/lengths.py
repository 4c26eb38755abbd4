"""How many guesses a step should verify."""

from collections.abc import Callable

Cost = Callable[[int], float]
"""Seconds of a step that reads this many tokens into one row; 1 is a plain step."""

MOST_GUESSES = 16
"""In one step. Beyond it even certain guesses gain little, and a wrong one throws away more."""

_STEPS = (1, 2, 3, 4, 6, 9, 17, 32)
"""Matches of these lengths and up to the next are judged together; 0 is for guessers that know of no match."""
_PRIOR = (0.6, 0.4, 0.5, 0.6, 0.75, 0.8, 0.9, 0.95, 0.98)
"""What is believed of each before anything is known."""
_PRIOR_WEIGHT = 8.0
_MEMORY = 0.97
"""Weight of the past against one more guess: some thirty guesses count."""
_GAIN = 1.1
"""Tokens a second must promise to grow by so much, or no guess is made."""
_FIRST_PROBE, _LAST_PROBE = 16, 256
"""Plain steps between two trials of a guesser that did not pay and whose guesses nobody could watch."""


class DraftLengths:
    """How many guesses pay, from how often they came true and from what steps cost.

    The more tokens agree before a guess, the surer it is: of each length of such a `match` there is a moving estimate
    of the chance that the next token is as guessed. If guess i comes true with chance p_i, a step with k guesses
    gives 1 + p_1 + p_1 p_2 + ... + p_1...p_k tokens (with equal chances (1 - p^(k+1)) / (1 - p)) and takes
    cost(k + 1) seconds; the k with most tokens a second is taken, 0 if a plain step does better.
    """

    def __init__(self, *, longest: int = MOST_GUESSES) -> None:
        self._longest = longest
        self._true = [_PRIOR_WEIGHT * chance for chance in _PRIOR]
        self._made = [_PRIOR_WEIGHT] * len(_PRIOR)
        self._pause = _FIRST_PROBE
        self._idle = 0

    def chance(self, match: int) -> float:
        """Of a guess to come true."""
        at = _step_of(match)
        return self._true[at] / self._made[at]

    def most(self, cost: Cost, *, match: int = 0) -> int:
        """How many guesses the next step should have; 0 for a plain one.

        Without a `match` nobody sees whether guesses that were not made would have come true: so one is allowed
        from time to time, ever more seldom while they fail.
        """
        best, _ = self.best(cost, match=match)
        if match or best:
            return best
        self._idle += 1
        if self._idle < self._pause:
            return 0
        self._idle = 0
        self._pause = min(2 * self._pause, _LAST_PROBE)
        return 1

    def best(self, cost: Cost, *, match: int = 0) -> tuple[int, float]:
        """The number of guesses that pays best, and the tokens a second that it promises."""
        best, rate = 0, 1 / max(cost(1), SOON)
        needed = rate * _GAIN
        tokens = reached = 1.0
        for guesses in range(1, self._longest + 1):
            reached *= self.chance(match + guesses - 1 if match else 0)
            tokens += reached
            promised = tokens / max(cost(guesses + 1), SOON)
            if promised > needed:
                best, rate = guesses, promised
                needed = promised
        return best, rate

    def note(self, proposed: int, accepted: int, *, match: int = 0) -> None:
        """Learn from `proposed` guesses of which the first `accepted` came true.

        Guesses that were only compared with what came, and not verified by the model, teach as much.
        """
        for made in range(min(accepted + 1, proposed)):
            at = _step_of(match + made if match else 0)
            self._true[at] = _MEMORY * self._true[at] + (made < accepted)
            self._made[at] = _MEMORY * self._made[at] + 1
        if accepted:
            self._pause, self._idle = _FIRST_PROBE, 0


SOON = 1e-9
"""Seconds; a cost that is not known yet divides nothing by zero."""
_STEP_OF = tuple(sum(length >= least for least in _STEPS) for length in range(_STEPS[-1] + 1))


def _step_of(match: int) -> int:
    return _STEP_OF[min(match, _STEPS[-1])]
