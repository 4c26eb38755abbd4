"""How many bytes of weights one decoded token needs."""

from edgekit import contract
from edgekit.manifest import Manifest
from edgekit.quant import QuantSpec


def bytes_per_token(manifest: Manifest) -> int:
    """Stored bytes of all weights but an embedding of which single rows are read; one shared with the head counts.

    The cached keys and values that a token also reads are not in it: they grow with the text.
    """
    arch = manifest.arch
    sizes = {entry.path: entry.size for entry in manifest.files}
    stored = sizes.get(contract.DATA_FILE, sizes.get(contract.MODEL_FILE, 0))
    spec = manifest.quant.weights.get("embed")
    if arch.tied or spec is None:
        return stored
    return max(0, stored - QuantSpec.parse(spec).bytes_for(arch.vocab, arch.hidden))
