"""What tests ask a registry by themselves, as any tool could: plain requests, and the files that it keeps on disk."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from edgekit.release.oci import MANIFEST_TYPE, Reference

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Tool:
    """Reads one tag of a registry on this machine."""

    reference: Reference

    def get(self, path: str) -> bytes:
        answer = urllib3.request("GET", f"{self.reference.url}{path}", headers={"Accept": MANIFEST_TYPE}, retries=False)
        assert answer.status == 200, f"{path}: {answer.status}"
        return answer.data

    def manifest(self, tag: str | None = None) -> Manifest:
        found: Manifest = json.loads(self.get(f"manifests/{tag or self.reference.tag}"))
        return found

    def blob(self, described: Manifest) -> bytes:
        """Held against its digest, as every tool should."""
        data = self.get(f"blobs/{described['digest']}")
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == described["digest"]
        assert len(data) == described["size"]
        return data

    def extracted(self, key: str) -> dict[str, bytes]:
        """Every layer by the path that an annotation gives it."""
        return {layer["annotations"][key]: self.blob(layer) for layer in self.manifest()["layers"]}

    def tags(self) -> list[str]:
        found: list[str] = json.loads(self.get("tags/list"))["tags"]
        return sorted(found)


@dataclass(frozen=True)
class Storage:
    """What docker-registry has on its disk."""

    folder: Path

    def blobs(self, name: str) -> set[str]:
        """Digests that a repository of the registry has."""
        return {path.name for path in (self._root / "repositories" / name / "_layers" / "sha256").iterdir()}

    def path(self, digest: str) -> Path:
        """Where a blob is, whichever repositories have it."""
        sha256 = digest.removeprefix("sha256:")
        return self._root / "blobs" / "sha256" / sha256[:2] / sha256 / "data"

    @property
    def _root(self) -> Path:
        return self.folder / "storage" / "docker" / "registry" / "v2"
