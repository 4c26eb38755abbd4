"""Gemma 3 with vision: its text part, which is a Gemma 3 text model. Images are not read.

Gemma Team 2025. Tensor names as in transformers' `Gemma3ForConditionalGeneration`: published files write
"language_model.model.layers...", newer ones "model.language_model.layers...".
"""

import msgspec

from edgekit.arch import ModelArch
from edgekit.errors import UnsupportedCheckpoint
from export.families import gemma3_text
from export.families.config import Config
from export.families.parts import Part, Tensors

NAMES = ("Gemma 3 4B, 12B and 27B (text)", "MedGemma 4B (text)")
CHECKED = "logits of text against transformers (tiny, with its vision tower), and numpy at every export"


def _both(theirs: str | Part) -> Part:
    part = theirs if isinstance(theirs, Part) else Part((theirs,))
    (name,) = part.theirs
    return Part((name, name.removeprefix("model.")), plus=part.plus)


TENSORS: Tensors = {ours: _both(theirs) for ours, theirs in gemma3_text.TENSORS.items()}
PREFIXES = ("language_model.", "model.language_model.")
IGNORED = gemma3_text.IGNORED | {
    *("vision_tower.", "multi_modal_projector."),
    *("model.vision_tower.", "model.multi_modal_projector."),
}


def arch(config: Config) -> ModelArch:
    """Facts from config.json's `text_config`. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    text = config.section("text_config")
    if text is None:
        raise UnsupportedCheckpoint("its configuration lacks text_config")
    text.only("final_logit_softcapping", value=None)  # transformers applies it in the text model's own class only
    return msgspec.structs.replace(gemma3_text.arch(text), model_type="gemma3")
