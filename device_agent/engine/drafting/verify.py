"""How guesses are verified (speculative decoding, Leviathan et al. 2023)."""

from collections.abc import Callable, Sequence

from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, Sampler


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
