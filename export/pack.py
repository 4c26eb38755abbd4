"""Everything beside the graph that makes a folder a bundle: tokenizer, genai configuration, card, manifest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.files import sha256_of
from edgekit.manifest import FORMAT, FileEntry, Manifest, Recipe, Requirements, Source, SpecialTokens, parse
from edgekit.quant import Precision
from export.card import model_card
from export.checkpoints import Checkpoint, TextFiles
from export.quantize.plan import Plan
from export.verify import Report

MIN_ONNXRUNTIME = "1.31"
"""The oldest release on which every operator that we write was measured."""


@dataclass(frozen=True)
class Named:
    """What the owner calls the model."""

    name: str
    version: str
    precision: Precision


def write_text_files(folder: Path, text: TextFiles) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja as the checkpoint has them."""
    (folder / contract.TOKENIZER_FILE).write_bytes(text.tokenizer_json)
    (folder / contract.TOKENIZER_CONFIG_FILE).write_bytes(_json(text.tokenizer_config))
    if text.chat_template is not None:
        (folder / contract.CHAT_TEMPLATE_FILE).write_bytes(text.chat_template.encode())


def write_genai_config(folder: Path, arch: ModelArch, tokens: SpecialTokens) -> None:
    """genai_config.json, by which onnxruntime-genai (C#, Java, C++, mobile) opens the same files."""
    names = {half: contract.past_name("%d", half) for half in contract.HALVES}
    outputs = {half: contract.present_name("%d", half) for half in contract.HALVES}
    config = {
        "model": {
            "type": "llama",
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
    (folder / contract.GENAI_FILE).write_bytes(_json(config))


def finish(
    folder: Path,
    named: Named,
    checkpoint: Checkpoint,
    arch: ModelArch,
    plan: Plan,
    tokens: SpecialTokens,
    report: Report,
) -> Manifest:
    """Write the card and the manifest over all files of `folder`; the manifest is returned."""
    weights = {name: matrix.spec.name for name, matrix in plan.items()}
    methods = sorted({matrix.method for matrix in plan.values()})
    source = Source(kind=checkpoint.kind, file=checkpoint.file, licence=checkpoint.licence)
    recipe = Recipe(precision=named.precision, method="+".join(methods), weights=weights)
    data_bytes = (folder / contract.DATA_FILE).stat().st_size

    def manifest(files: tuple[FileEntry, ...]) -> Manifest:
        return Manifest(
            format=FORMAT,
            name=named.name,
            version=named.version,
            arch=arch,
            quant=recipe,
            files=files,
            requires=Requirements(
                onnxruntime=MIN_ONNXRUNTIME,
                disk_bytes=sum(entry.size for entry in files),
                weight_bytes=data_bytes,
                kv_bytes_per_token=arch.kv_bytes_per_token,
            ),
            tokens=tokens,
            source=source,
            quality=report.quality(),
            golden=report.golden,
        )

    (folder / contract.CARD_FILE).write_bytes(model_card(manifest(())).encode())
    raw = manifest(_entries(folder)).to_bytes()
    (folder / contract.MANIFEST_FILE).write_bytes(raw)
    return parse(raw, path=str(folder))  # what devices will read: a manifest that they would refuse fails here


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path)) for path in files)


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"
