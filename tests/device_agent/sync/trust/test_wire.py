"""Metadata on its way in, in any shape."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.exceptions import DownloadHTTPError

from device_agent.sync.trust.wire import MAX_DEPTH, MAX_TIMESTAMP_BYTES, SourceFetcher, check
from edgekit.errors import Unreachable, Untrusted
from tests.repositories import MemorySource, Repository

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_is_either_plain_or_not_trusted(raw: bytes) -> None:
    with contextlib.suppress(Untrusted):
        check(raw, name="it")
        assert isinstance(json.loads(raw)["signatures"], list)


@given(JSON)
def test_whatever_is_inside_of_metadata(value: object) -> None:
    raw = json.dumps({"signatures": [], "signed": value}).encode()
    plain = "NaN" not in raw.decode() and "Infinity" not in raw.decode()
    with contextlib.nullcontext() if plain else contextlib.suppress(Untrusted):
        check(raw, name="it")


@pytest.mark.parametrize("extra", [0, 1])
def test_the_last_level_that_may_be(extra: int) -> None:
    depth = MAX_DEPTH - 1 + extra
    raw = b'{"signatures":[],"signed":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(Untrusted) if extra else contextlib.nullcontext():
        check(raw, name="it")


def test_every_file_of_a_repository_passes() -> None:
    for path, raw in Repository().files.items():
        check(raw, name=path)


def test_a11_a_source_that_gives_more_than_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Repository().files["metadata/timestamp.json"] + b" " * MAX_TIMESTAMP_BYTES
    source = MemorySource({})
    monkeypatch.setattr(source, "read", lambda _path, **_limit: raw)
    with pytest.raises(Untrusted, match="larger than 16,384 bytes"):
        SourceFetcher(source).download_bytes("metadata/timestamp.json", 1 << 30)


def test_only_a_missing_file_is_told_to_python_tuf() -> None:
    source = MemorySource({})
    with pytest.raises(DownloadHTTPError) as caught:
        SourceFetcher(source).download_bytes("metadata/2.root.json", 100)
    assert caught.value.status_code == 404

    def cut(_path: str) -> bytes:
        raise Unreachable("the cable")

    source.answer = cut
    with pytest.raises(Unreachable, match="the cable"):
        SourceFetcher(source).download_bytes("metadata/2.root.json", 100)
