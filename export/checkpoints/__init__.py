"""Sources of models. `open_checkpoint` presents a GGUF file or a Hugging Face folder in one vocabulary.

That vocabulary is Hugging Face's: configuration keys and tensor names as transformers spells them, so
that families know nothing of file formats. Every byte read here is untrusted: lengths, counts and
offsets are checked against the file before anything is allocated, and nothing is ever unpickled.

    records.py          what crosses the border
    extents.py          reads byte ranges of a file, never the whole of it
    hf.py               config.json + safetensors (safetensors_header.py) + tokenizer files (hf_text.py)
    gguf.py             the file (gguf_header.py), its names and settings (gguf_names.py, gguf_config.py),
                        its values (gguf_values.py), its tokenizer (gguf_tokenizer.py)
"""

from pathlib import Path

from edgekit.errors import CheckpointNotFound, UnsupportedCheckpoint
from export.checkpoints.gguf import GgufCheckpoint
from export.checkpoints.hf import TO_SAFETENSORS, HfCheckpoint
from export.checkpoints.records import Blocks, Checkpoint, TensorInfo, TextFiles

__all__ = ["Blocks", "Checkpoint", "TensorInfo", "TextFiles", "open_checkpoint"]

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def open_checkpoint(source: Path) -> Checkpoint:
    """Open a GGUF file or a Hugging Face folder; close it, or use it in a `with` block.

    Raises CheckpointNotFound (nothing there), CorruptCheckpoint (damaged, or claims what cannot be),
    UnsupportedCheckpoint (a kind that is not read, pickles among them), UnknownFamily (a GGUF of an
    architecture without a table of names), MissingTensor or UnexpectedTensor.
    """
    if source.is_dir():
        return HfCheckpoint.open(source)
    if not source.is_file():
        raise CheckpointNotFound(f"{source}: there is no such file or folder")
    if source.suffix in _PICKLES:
        raise UnsupportedCheckpoint(f"{source.name} is a pickle; {TO_SAFETENSORS}")
    if source.suffix == ".safetensors":
        raise UnsupportedCheckpoint(f"{source.name} holds weights only; give the folder that also has its config.json")
    return GgufCheckpoint.open(source)
