"""What an export is asked for."""

from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import CacheType
from edgekit.quant import Precision
from export.quantize.plan import Recipe, Rounding


@dataclass(frozen=True)
class ExportJob:
    """What to make of which model, and where. `name` defaults to the source's file name.

    `adapter` is a folder of a LoRA that is merged into the source; `max_kl` (nats) is what the bundle may lose;
    `freeze_scales_from` is a bundle that devices have; the other fields are as in `export.quantize.plan.Recipe`.
    """

    source: Path
    out: Path
    precision: Precision = "int4"
    name: str | None = None
    version: str = "1"
    adapter: Path | None = None
    block_size: int = 32
    method: Rounding = "rtn"
    size_budget: int | None = None
    calibration: Path | None = None
    max_kl: float | None = None
    rotate: bool = False
    kv: CacheType = "float32"
    freeze_scales_from: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """How weights are to be quantised."""
        return Recipe(
            self.precision,
            self.block_size,
            self.method,
            self.size_budget,
            self.calibration,
            self.rotate,
            self.kv,
            self.freeze_scales_from,
        )
