import msgspec

from device_agent.bench.weights import bytes_per_token
from edgekit import contract
from edgekit.bundle import read_manifest
from edgekit.quant import QuantSpec
from tests.device_agent.bundles import TINY

MANIFEST = read_manifest(TINY)
STORED = {entry.path: entry.size for entry in MANIFEST.files}[contract.DATA_FILE]


def test_an_embedding_of_its_own_is_not_read_whole() -> None:
    apart = msgspec.structs.replace(MANIFEST, arch=msgspec.structs.replace(MANIFEST.arch, tied=False))
    table = QuantSpec.parse(MANIFEST.quant.weights["embed"]).bytes_for(MANIFEST.arch.vocab, MANIFEST.arch.hidden)
    assert bytes_per_token(apart) == STORED - table


def test_an_embedding_that_is_the_head_too_is_read_whole() -> None:
    tied = msgspec.structs.replace(MANIFEST, arch=msgspec.structs.replace(MANIFEST.arch, tied=True))
    assert bytes_per_token(tied) == STORED
