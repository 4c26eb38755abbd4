"""Sources of models. `open_checkpoint` presents a GGUF file or a Hugging Face folder in one vocabulary.

That vocabulary is Hugging Face's: configuration keys and tensor names as transformers spells them, so
that families know nothing of file formats. Every byte read here is untrusted: lengths, counts and
offsets are checked against the file before anything is allocated, and nothing is ever unpickled.

    records.py          what crosses the border
    extents.py          reads byte ranges of a file, never the whole of it
    hf.py               config.json + tokenizer files (hf_text.py) + safetensors (safetensors_header.py,
                        safetensors_values.py), of floats or packed by GPTQ or AWQ (packed.py)
    lora.py             a checkpoint with an adapter merged (adapter_config.py, adapter.py)
    gguf.py             the file or its parts (gguf_header.py, gguf_parts.py): its settings (gguf_settings.py,
                        gguf_config.py, gguf_rules.py) and names (gguf_views.py) by architecture (gguf_tables.py, in
                        the words of gguf_names.py), its values (gguf_values.py, gguf_blocks.py)
    pieces.py           tokenizers from tables of tokens, for files that have no tokenizer.json: gguf_tokenizer.py,
                        and hf_tokenizer.py with sentencepiece_file.py (cuttings.py and charsmap.py are their rules)
"""

from pathlib import Path

from edgekit.errors import CheckpointNotFound, UnsupportedCheckpoint
from export.checkpoints.gguf import GgufCheckpoint
from export.checkpoints.hf import PICKLES, TO_SAFETENSORS, HfCheckpoint
from export.checkpoints.lora import AdaptedCheckpoint
from export.checkpoints.records import Blocks, Checkpoint, TensorInfo, TextFiles

__all__ = ["Blocks", "Checkpoint", "TensorInfo", "TextFiles", "open_checkpoint"]


def open_checkpoint(source: Path, adapter: Path | None = None) -> Checkpoint:
    """Open a GGUF file or a Hugging Face folder; close it, or use it in a `with` block.

    `adapter` is a folder of a PEFT LoRA, which is merged into what is read.

    Raises CheckpointNotFound (nothing there), CorruptCheckpoint (damaged, or claims what cannot be),
    UnsupportedCheckpoint (a kind that is not read, pickles among them), UnknownFamily (a GGUF of an
    architecture without a table of names), MissingTensor, UnexpectedTensor or AdapterMismatch.
    """
    base = _open(source)
    return base if adapter is None else AdaptedCheckpoint.open(base, adapter)


def _open(source: Path) -> Checkpoint:
    if source.is_dir():
        return HfCheckpoint.open(source)
    if not source.is_file():
        raise CheckpointNotFound(f"{source}: there is no such file or folder")
    if source.suffix in PICKLES:
        raise UnsupportedCheckpoint(f"{source.name} is a pickle; {TO_SAFETENSORS}")
    if source.suffix == ".safetensors":
        raise UnsupportedCheckpoint(f"{source.name} holds weights only; give the folder that also has its config.json")
    return GgufCheckpoint.open(source)
