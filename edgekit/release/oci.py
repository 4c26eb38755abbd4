"""A release in an OCI registry: how it is laid out, and how it is named.

A tag holds one release, as an artifact of the CNCF ModelPack specification (github.com/modelpack/model-spec, v1), so
that other tools can pull it as the model that it is: every file is one layer, raw.

    artifactType  application/vnd.cncf.model.manifest.v1+json
    config        application/vnd.cncf.model.config.v1+json: name, version, licence, architecture, digests of all layers
    layers        application/vnd.cncf.model.weight.v1.raw          *.data, *.onnx_adapter
                  application/vnd.cncf.model.weight.config.v1.raw   all else of the release's files
                  application/vnd.cncf.model.doc.v1.raw             *.md
                  application/vnd.edgekit.repository.v1.raw         files of the signed repository (edgekit.release)
                      annotations org.cncf.model.filepath (ModelPack's tools go by it, and by the media type's end) and
                      org.opencontainers.image.title (ORAS goes by that one): the file's path, and for a file of the
                      repository `.edgekit/` and its path there. No file of a release can begin with a dot.

An empty file is no layer, as some registries take no empty blobs: devices make it themselves.

A device reads the signed metadata from the repository's layers, and chunks as ranges of the files' layers, so that
nothing is stored twice but the differences between releases. The metadata is about every channel. What else the
channels name is in the same repository of the registry, under a tag of its own (`tag_of`), so that a device may be told
to go back, and no registry clears away what only an older tag held. A registry is trusted with nothing: what it says
about digests is not even looked at.
"""

import re
from dataclasses import dataclass

from edgekit.errors import UsageError

SCHEME = "oci://"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"
REPOSITORY_TYPE = "application/vnd.edgekit.repository.v1.raw"
REPOSITORY_FOLDER = ".edgekit/"
FILE_PATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"

MAX_MANIFEST_BYTES = 4 << 20
"""Of the OCI distribution specification: what every registry must take."""

_REFERENCE = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:]+\](?::\d{1,5})?)"
    r"/(?P<name>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
"""This machine itself, which is asked by plain HTTP."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`host[:port]/name:tag`."""

    host: str
    name: str
    tag: str

    @property
    def url(self) -> str:
        """Where the registry's API has it. Plain HTTP only on this machine itself, as other tools do."""
        scheme = "http" if self.host in LOOPBACK or self.host.rpartition(":")[0] in LOOPBACK else "https"
        return f"{scheme}://{self.host}/v2/{self.name}/"

    def __str__(self) -> str:
        """As a person writes it."""
        return f"{self.host}/{self.name}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """`[oci://]host[:port]/name[:tag]`; without a tag it is "latest". Raises UsageError."""
    match = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
    if match is None:
        raise UsageError(f"{text[:200]!r} is no reference of a registry: host[:port]/name:tag.")
    return Reference(match["host"], match["name"], match["tag"] or "latest")


def layer_type(path: str) -> str:
    """The media type of a release's file."""
    if path.endswith((".data", ".onnx_adapter")):
        return WEIGHT_TYPE
    return DOC_TYPE if path.endswith(".md") else WEIGHT_CONFIG_TYPE


def tag_of(release: str) -> str:
    """The tag of a release that is pushed beside the one that was asked for: tags have no `+`."""
    return release.replace("+", "_")
