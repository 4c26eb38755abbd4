"""Proof that a finished folder computes what the checkpoint says, before it becomes a bundle.

1. Opened in onnxruntime with activations and cache kept in float, its logits equal those of the numpy reference over
   the bytes on disk: a wrong graph, a wrong layout or a damaged file cannot pass.
2. As devices run it (activations rounded to INT8, and the cache if that was asked for), its logits stay near: what
   is lost is measured against the checkpoint's own values. That is the quality that the manifest records.
3. The twin that reads prompts, if there is one, writes nearly the same keys and values (export.verify_prompt).
4. Greedy continuations are recorded: any device can repeat them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.errors import VerificationFailed
from edgekit.manifest import Golden
from export import reference, verify_prompt
from export.divergence import divergence
from export.families.weights import Weights
from export.matrices import BundleMatrices, CheckpointMatrices
from export.quantize.plan import Plan
from export.runner import Runner
from export.segments import Cache, Segments

Floats = npt.NDArray[np.float32]

MAX_ERROR = 1e-3
"""Largest difference of a logit from the reference, relative to the largest logit, with float activations."""

MAX_KL_OF_ACTIVATIONS = 0.1
"""Rounded activations cannot be held to a small tolerance logit by logit: a value in the middle between two codes
falls on either side by the order of a sum, and 30 layers amplify it. The distributions must stay near each other."""

GOLDEN_TOKENS = 16
LARGE_PARAMETERS = 1_000_000_000
GOLDEN_TOKENS_OF_LARGE = 4
"""Each further token opens and reads the whole of a model that is checked in segments."""

SURE_MARGIN = 0.03
"""A greedy token is sure if it leads by this share of the logits' whole range: 1.2 logits of SmolLM2's 40, where INT8
rounding moves one by 0.3 to 0.7. Closer ones may change with the CPU, and a sound bundle would be called damaged."""


@dataclass(frozen=True)
class Report:
    """What verification measured; `kl` is in nats, `same_top_token` a share of `tokens` positions.

    `prompt_kl` is what tokens lose that follow a prompt which the twin has read, if that was measured.
    """

    error: float
    kl: float
    same_top_token: float
    tokens: int
    golden: tuple[Golden, ...]
    speed: Mapping[str, float] = field(default_factory=dict)
    prompt_kl: float | None = None

    def quality(self) -> dict[str, float]:
        """As the manifest records it."""
        return {
            "verification_error": round(self.error, 7),
            "kl": round(self.kl, 6),
            "same_top_token": round(self.same_top_token, 4),
            "tokens": float(self.tokens),
            **({} if self.prompt_kl is None else {"prompt_kl": round(self.prompt_kl, 6)}),
            **self.speed,
        }


def against_reference(
    folder: Path,
    arch: ModelArch,
    plan: Plan,
    weights: Weights,
    *,
    probe: Sequence[int],
    prompts: Sequence[Sequence[int]],
    eos: Sequence[int],
    step: Callable[[str], None],
) -> Report:
    """Check `folder`; `probe` are ids of ordinary text, `prompts` what golden tokens follow.

    `weights` are the checkpoint's own, also of a rotated graph. `step` is told what is being done.
    Raises VerificationFailed.
    """
    layer_bytes = sum(matrix.bytes for name, matrix in plan.items() if name.startswith("layers.0."))
    step("comparing with a numpy reference")
    expected = reference.logits(arch, BundleMatrices(folder, plan), probe)
    with Segments(folder, arch, layer_bytes, exact=True) as segments:
        error = _check_exact(segments.run([probe], [segments.empty()])[0][0], expected)
    step("measuring quality")
    plain = msgspec.structs.replace(arch, rotated=False)
    source = reference.logits(plain, CheckpointMatrices(plain, weights), probe)
    with Segments(folder, arch, layer_bytes, exact=False) as segments:
        # The prompts go along: of a large model, each run opens and reads everything.
        (found, *answers), (read, *pasts) = segments.run(
            [probe, *prompts], [segments.empty() for _ in (probe, *prompts)]
        )
        _check_near(found, expected)
        kl, same = divergence(source, found)
        if not np.isfinite(kl):
            raise VerificationFailed("the checkpoint's own logits are not finite numbers")
        prompt_kl = None
        if (folder / contract.PREFILL_FILE).exists():
            step("checking the graph that reads prompts")
            prompt_kl = verify_prompt.against_decoder(
                folder, arch, plan, verify_prompt.Read(probe, found, read), segments
            )
        step("recording golden tokens")
        length = GOLDEN_TOKENS if arch.parameters < LARGE_PARAMETERS else GOLDEN_TOKENS_OF_LARGE
        recorded = continued(segments, prompts, answers, pasts, eos=eos, tokens=length)
    return Report(error, kl, same, len(probe), recorded, prompt_kl=prompt_kl)


def _check_exact(found: Floats, expected: Floats) -> float:
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= MAX_ERROR:  # NaN is not
        raise VerificationFailed(f"logits differ from the reference by {error:.2%}, more than {MAX_ERROR:.2%}")
    return error


def _check_near(found: Floats, expected: Floats) -> None:
    kl, _ = divergence(expected, found)
    if not kl <= MAX_KL_OF_ACTIVATIONS:
        raise VerificationFailed(
            f"rounded activations (and cache, if it is INT8) cost {kl:.3f} nats, more than {MAX_KL_OF_ACTIVATIONS}"
        )


def golden(runner: Runner, prompts: Sequence[Sequence[int]], eos: Sequence[int]) -> tuple[Golden, ...]:
    """Greedy continuations of all prompts."""
    logits, pasts = runner.run(prompts, [runner.empty() for _ in prompts])
    return continued(runner, prompts, logits, pasts, eos=eos, tokens=GOLDEN_TOKENS)


def continued(
    runner: Runner,
    prompts: Sequence[Sequence[int]],
    logits: Sequence[Floats],
    pasts: Sequence[Cache],
    *,
    eos: Sequence[int],
    tokens: int,
) -> tuple[Golden, ...]:
    """Greedy continuations of prompts that were read, side by side: a large model is read once a token, not per prompt.

    `logits` and `pasts` are what `runner` gave for each prompt.
    """
    growing = [_Continuation([], past) for past in pasts]
    for each, read in zip(growing, logits, strict=True):
        each.add(read[-1])
    while alive := [each for each in growing if not each.ended(eos, tokens)]:
        found, grown = runner.run([each.following for each in alive], [each.past for each in alive])
        for each, last, past in zip(alive, found, grown, strict=True):
            each.past = past
            each.add(last[-1])
    return tuple(
        Golden(prompt=tuple(prompt), tokens=tuple(each.tokens), sure=each.sure)
        for prompt, each in zip(prompts, growing, strict=True)
    )


@dataclass
class _Continuation:
    """A greedy continuation as it grows: `following` are the ids that the model has not read yet."""

    following: list[int]
    past: Cache
    tokens: list[int] = field(default_factory=list)
    sure: int = 0

    def ended(self, eos: Sequence[int], tokens: int) -> bool:
        return len(self.tokens) == tokens or self.tokens[-1] in eos

    def add(self, logits: Floats) -> None:
        token = int(logits.argmax())
        second, first = np.partition(logits, -2)[-2:]
        if self.sure == len(self.tokens) and first - second > SURE_MARGIN * (logits.max() - logits.min()):
            self.sure += 1
        self.tokens.append(token)
        self.following = [token]
