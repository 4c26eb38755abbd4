"""The original: transformers' LlamaForCausalLM with given weights, in float32."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray


class TorchLlama:
    """Weights under transformers' names and config.json's values, nothing of ours."""

    def __init__(self, config: Mapping[str, object], tensors: Mapping[str, NDArray[np.float32]]) -> None:
        facts = transformers.LlamaConfig.from_dict(dict(config))
        self._model: Any = transformers.LlamaForCausalLM(facts).eval()  # type: ignore[no-untyped-call]
        state = {name: torch.from_numpy(np.array(values)) for name, values in tensors.items()}
        missing, unexpected = self._model.load_state_dict(state, strict=False)
        assert not unexpected
        assert set(missing) <= ({"lm_head.weight"} if facts.tie_word_embeddings else set())
        self._model.tie_weights()

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """[tokens, vocab], in one pass without a cache."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self._model(torch.tensor([ids])).logits[0].numpy()
        return found

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """`count` tokens by the plain definition, its own cache in use."""
        tokens: list[int] = []
        with torch.inference_mode():
            result = self._model(torch.tensor([prompt]), use_cache=True)
            while True:
                tokens.append(int(result.logits[0, -1].argmax()))
                if len(tokens) == count:
                    return tokens
                result = self._model(torch.tensor([tokens[-1:]]), past_key_values=result.past_key_values)
