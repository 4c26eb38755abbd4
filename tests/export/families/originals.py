"""Tiny random models in torch, each saved as the folder that a user would have."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from tests import tiny
from tests.export.families.torch_jais import Jais

OTHERS: Mapping[str, Callable[[Mapping[str, object]], Any]] = {"jais": Jais}
"""Families that are not in transformers: a module with their `save_pretrained` and `get_input_embeddings`."""


class Original:
    """A configuration's model with random weights. `folder` is what `save_pretrained` writes, and a tokenizer.

    Values that equal a configuration class's default are absent from its config.json.
    """

    def __init__(self, settings: Mapping[str, object], folder: Path) -> None:
        build = OTHERS.get(str(settings["model_type"]), _from_transformers)
        self._model = build(settings).eval()
        _randomise(self._model)
        self._model.save_pretrained(folder)
        tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tiny.SPECIALS[tiny.IM_END]}
        tiny.write_json(folder / "tokenizer_config.json", tokens)
        (folder / "tokenizer.json").write_text(tiny.tokenizer().to_str(), encoding="utf-8")
        self.folder = folder

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[tokens, vocab], in one pass without a cache."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self._model(torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()
        return found


def _from_transformers(settings: Mapping[str, object]) -> Any:
    """On the plainest attention; Falcon's adds ALiBi twice (transformers 4.57), in the mask and to the scores."""
    auto: Any = transformers
    config = auto.AutoConfig.for_model(**settings)
    attention = "sdpa" if settings["model_type"] == "falcon" else "eager"
    # Its own random values are not wanted, and that of StableLM's head norms fails: they have no bias.
    with mock.patch.object(transformers.PreTrainedModel, "initialize_weights"):
        return auto.AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def _randomise(model: Any) -> None:
    """Gains and biases become clearly other than 1 and 0, and logits differ clearly between tokens."""
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            noise = torch.randn(values.shape, generator=made)
            if values.ndim == 1 or "norm" in name:
                values.add_(noise, alpha=0.2)
            else:
                is_table = values.shape[0] == model.get_input_embeddings().num_embeddings
                values.copy_(noise * (0.5 if is_table else 0.2))
