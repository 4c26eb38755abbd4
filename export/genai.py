"""genai_config.json: what onnxruntime-genai must know to open a bundle. A rule without IO; `export.pack` writes it."""

from collections.abc import Mapping

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.manifest import SpecialTokens

ANY = "decoder"
"""Its word for a decoder of no kind that it knows, whose graph has the usual inputs and outputs."""

TYPES: Mapping[str, str] = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",  # its "gemma3" wants images
    "gemma3_text": "gemma3_text",
    "granite": "granite",
    "llama": "llama",
    "mistral": "mistral",
    "nemotron": "nemotron",
    "phi": "phi",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "smollm3": "smollm3",
}
"""Our model type -> its own (release 0.18), where it has one.

Its "gpt2" is a model of another contract, whose cache is one tensor a layer.
"""


def configuration(arch: ModelArch, tokens: SpecialTokens) -> Mapping[str, object]:
    """The whole file, in its own words (onnxruntime-genai's `config.h`)."""
    names = {half: contract.past_name("%d", half) for half in contract.HALVES}
    outputs = {half: contract.present_name("%d", half) for half in contract.HALVES}
    return {
        "model": {
            "type": TYPES.get(arch.model_type, ANY),
            "bos_token_id": tokens.eos[0] if tokens.bos is None else tokens.bos,
            "eos_token_id": list(tokens.eos),
            "pad_token_id": tokens.eos[0] if tokens.pad is None else tokens.pad,
            "context_length": arch.context,
            "vocab_size": arch.vocab,
            "decoder": {
                "filename": contract.MODEL_FILE,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "head_size": arch.head_dim,
                "hidden_size": arch.hidden,
                "num_attention_heads": arch.heads,
                "num_hidden_layers": arch.layers,
                "num_key_value_heads": arch.kv_heads,
                "inputs": {
                    "input_ids": contract.INPUT_IDS,
                    "attention_mask": contract.ATTENTION_MASK,
                    "past_key_names": names["key"],
                    "past_value_names": names["value"],
                },
                "outputs": {
                    "logits": contract.LOGITS,
                    "present_key_names": outputs["key"],
                    "present_value_names": outputs["value"],
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": arch.context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 1.0,
        },
    }
