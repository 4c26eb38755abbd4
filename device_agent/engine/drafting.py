"""Guessed tokens: what may come next, how many of it are worth verifying, and how they are verified.

A decoder reads several tokens in hardly more time than one, so tokens that were guessed cheaply are read together,
and those that the model would have chosen itself are kept. Guesses come from the text: what followed where the newest
tokens stood before (prompt lookup decoding, Saxena 2023; LLMA, Yang et al. 2023), and from a smaller model if there
is one (Leviathan et al. 2023). No guess changes what is generated, see `verified`.

`Guesser` is what a request needs; it is made of the other parts.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from device_agent.engine.rows import Floats, Rows
from device_agent.engine.sampling import History, Sampler
from edgekit.errors import UsageError

log = logging.getLogger(__name__)

Cost = Callable[[int], float]
"""Seconds of a step that reads this many tokens into one row; 1 is a plain step."""

MOST_GUESSES = 16
"""In one step. Beyond it even certain guesses gain little, and a wrong one throws away more."""


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def propose(self, ids: Sequence[int], most: int) -> Sequence[int]:
        """At most `most` guesses of what follows `ids`, prompt and answer so far; none if it has no idea."""


def verified(
    logits: Floats, drafts: Sequence[int], sampler: Sampler, history: History, *, stop: Callable[[int], bool]
) -> list[int]:
    """The tokens that a step gave: those guesses that came true, and the one that the model chose after them.

    `logits` [len(drafts) + 1, vocab] are those after the newest token and after each guess. Tokens go into
    `history` as they come; `stop` is asked once for each and ends the list after it. Raises what the sampler raises.

    The text is distributed as without guesses. By induction: let the first i tokens equal the first i guesses.
    Then row i of `logits` is what the model says after exactly these tokens, and the sampler draws token i from it
    with the history and the random state that it would have without guesses. Where the token differs from the guess
    the list ends, and no row is looked at whose tokens did not come true. So even the random numbers are used alike:
    a seed gives the same text, up to the rounding of a step of several tokens against steps of one.
    (Leviathan et al. accept a guess x with probability min(1, p(x) / q(x)). A guesser that is sure has q(x) = 1, and
    a token drawn from p equals x with just that probability: nothing is lost by the simpler rule.)
    """
    tokens: list[int] = []
    for at in range(len(drafts) + 1):
        token = sampler(logits[at], history)
        history.add(token)
        tokens.append(token)
        if stop(token) or at == len(drafts) or token != drafts[at]:
            break
    return tokens


# --- guesses from the text ------------------------------------------------------------------

_SHORTEST = 2
"""Tokens that must agree before a guess is made."""
_LONGEST = 32
"""Agreement beyond this tells nothing more."""
_TRIES = 32
"""Places that are compared; bounds the time for a text that repeats itself."""


class NgramDrafter:
    """What followed where the newest tokens stood before: the place whose context agrees longest, the newest of equals.

    One request's; `ids` may only grow between calls (otherwise it starts again). Places are found by chains, as in
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
        """As Drafter. A source that reaches the end of the text is repeated: what came in circles goes on so."""
        if len(ids) < len(self._before):
            self.__init__()  # type: ignore[misc]  # another text
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


# --- how many guesses -----------------------------------------------------------------------

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
        best, rate = 0, 1 / max(cost(1), _SOON)
        needed = rate * _GAIN
        tokens = reached = 1.0
        for guesses in range(1, self._longest + 1):
            reached *= self.chance(match + guesses - 1 if match else 0)
            tokens += reached
            promised = tokens / max(cost(guesses + 1), _SOON)
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


_SOON = 1e-9
"""Seconds; a cost that is not known yet divides nothing by zero."""
_STEP_OF = tuple(sum(length >= least for least in _STEPS) for length in range(_STEPS[-1] + 1))


def _step_of(match: int) -> int:
    return _STEP_OF[min(match, _STEPS[-1])]


# --- guesses from a smaller model -----------------------------------------------------------

_CHUNK_TOKENS = 128
_READ_AHEAD = 32
"""Catching up with more tokens than this says nothing about what a guess usually costs."""


class Vocabulary(Protocol):
    """What is needed of `tokenizers.Tokenizer`."""

    def get_vocab(self, with_added_tokens: bool = True) -> Mapping[str, int]:  # noqa: FBT001, FBT002 - as it has it
        """Ids by the tokens' texts."""


def check_same_vocabulary(model: Vocabulary, draft: Vocabulary, *, name: str) -> None:
    """Raises UsageError if the draft model `name` gives other ids to tokens: its guesses would be other words."""
    ours, theirs = model.get_vocab(), draft.get_vocab()
    if ours != theirs:
        differing = sum(theirs.get(token) != at for token, at in ours.items()) + len(theirs.keys() - ours.keys())
        raise UsageError(f"{name} cannot guess for this model: {differing:,} tokens differ between their tokenizers.")


class ModelDrafter:
    """Greedy guesses of a smaller model with the same tokenizer, in the first of its `rows`.

    Serves one request after the other: what the row holds is kept as far as the text agrees. `vocab` is the larger
    model's; ids that it does not have are never guessed. An error is logged once, and ends the guessing alone.
    """

    def __init__(self, rows: Rows, *, vocab: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.guess_s = 0.0
        """Seconds that a guess takes, a moving average; 0 before the first."""
        self._rows = rows
        self._vocab = vocab
        self._clock = clock
        self._held: list[int] = []  # what the row has read
        self._failed = False

    def propose(self, ids: Sequence[int], most: int) -> Sequence[int]:
        """As Drafter; fewer guesses where the smaller model's context ends."""
        most = min(most, self._rows.context_tokens - len(ids) + 1)  # nobody reads the last one
        if self._failed or most < 1:
            return ()
        try:
            return self._guesses(ids, most)
        except Exception:  # whatever it is, the request needs no guesses
            log.exception("The draft model failed, and is not used any more")
            self._failed = True
            return ()

    def _guesses(self, ids: Sequence[int], most: int) -> Sequence[int]:
        started, held = self._clock(), _common(self._held, ids)
        guesses = [self._likeliest(self._read(ids, min(held, len(ids) - 1)))]
        while len(guesses) < most:
            logits = self._rows.decode({0: guesses[-1]})
            self._held.append(guesses[-1])
            guesses.append(self._likeliest(logits))
        if len(ids) - held <= _READ_AHEAD:
            each_s = (self._clock() - started) / most
            self.guess_s = 0.8 * self.guess_s + 0.2 * each_s if self.guess_s else each_s
        return guesses

    def _read(self, ids: Sequence[int], held: int) -> Floats:
        """Keep the first `held` tokens of the row, read the others; logits [1, vocab]."""
        self._rows.truncate(0, held)
        del self._held[held:]
        while True:
            chunk = ids[len(self._held) : len(self._held) + _CHUNK_TOKENS]
            logits = self._rows.read(0, chunk)
            self._held += chunk
            if len(self._held) == len(ids):
                return logits

    def _likeliest(self, logits: Floats) -> int:
        return int(logits[0, : self._vocab].argmax())


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens at their beginnings agree."""
    size = min(len(first), len(second))
    return next((at for at in range(size) if first[at] != second[at]), size)


# --- both together --------------------------------------------------------------------------


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
        count, rate = self._text_lengths.best(cost, match=match) if found else (0, 1 / max(cost(1), _SOON))
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
        accepted = _common(guesses, came)
        lengths.note(len(guesses) if accepted < len(came) else accepted, accepted, match=match)

    return learn
