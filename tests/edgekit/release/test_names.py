"""Every path that a release may write is one file on every system, and stays in its folder."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.release import names

DIGEST = "ab" * 32

HOSTILE = {
    "up": "../x",
    "up in the middle": "a/../b",
    "absolute": "/x",
    "drive": "C:\\x",
    "drive without a slash": "C:x",
    "backslash": "a\\b",
    "stream of NTFS": "a:b",
    "empty": "",
    "empty part": "a//b",
    "dot": "./a",
    "ends with a slash": "a/",
    "NUL": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1bb",
    "right to left": "a\u202eb",
    "no-break space": "a\u00a0b",
    "lone surrogate": "a\ud800b",
    "CON": "CON",
    "con in a folder": "x/con",
    "nul with an ending": "nul.txt",
    "COM1": "com1.onnx",
    "LPT superscript": "lpt²",
    "CON with spaces": "con .txt",
    "CONOUT$": "conout$",
    "ends with a dot": "a./b",
    "ends with a space": "a /b",
    "hidden": ".release.json",
    "hidden folder": ".git/config",
    "decomposed": "u\u0308ber",
    "wildcard": "a*",
    "question mark": "a?",
    "quote": 'a"b',
    "pipe": "a|b",
    "less": "a<b",
    "300 characters": "a" * 300,
    "300 characters in folders": "a/" * 149 + "bc",
    "more than 255 bytes": "\u4e00" * 86,
}


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE)
def test_b04_a_path_that_is_none_somewhere_is_none_anywhere(path: str) -> None:
    assert names.unportable(path)


@pytest.mark.parametrize(
    "path",
    ["bundle.json", "model.onnx.data", "a/b/c.bin", "console", "com10", "com", "lptx.txt", "ü.txt", "a b", "x-1+2_3"],
)
def test_an_ordinary_path_is_allowed(path: str) -> None:
    assert names.unportable(path) is None


TWINS = {
    "the same twice": ("a", "a"),
    "case": ("Model.onnx", "model.ONNX"),
    "sharp s": ("straße", "STRASSE"),
    "case of a folder": ("Data/a", "data/b"),
    "case of an inner folder": ("x/Data/a", "x/data/b"),
    "a folder that is a file": ("a", "a/b"),
    "a folder that is a file in another case": ("A", "a/b/c"),
    "an inner folder that is a file": ("x/a", "x/a/b"),
    "composed and not": ("\u00fc", "u\u0308"),
}


@pytest.mark.parametrize("pair", TWINS.values(), ids=TWINS)
def test_b04_twins_are_found_among_others(pair: tuple[str, str]) -> None:
    found = names.twins(["other", *pair, "z/other"])
    assert found is not None
    assert set(found) == set(pair)
    assert names.twins(reversed(["other", *pair, "z/other"])) is not None


def test_paths_that_only_look_alike_are_no_twins() -> None:
    assert names.twins(["a", "ab", "b/a", "b/ab", "c/a", "a.b", "b.a"]) is None


@given(st.lists(st.text(alphabet="abAB/", min_size=1, max_size=6), max_size=6, unique=True))
def test_without_twins_no_two_paths_meet_where_case_does_not_count(paths: list[str]) -> None:
    plain = [path for path in paths if names.unportable(path) is None]
    folded = [path.casefold() for path in plain]
    meet = len(set(folded)) < len(folded) or any(
        one != other and other.startswith(one + "/") for one in folded for other in folded
    )
    if meet:
        assert names.twins(plain) is not None


@given(st.text(max_size=300))
def test_a_portable_path_stays_in_its_folder(path: str) -> None:
    if names.unportable(path) is None:
        parts = path.split("/")
        assert "" not in parts
        assert not {".", ".."} & set(parts)
        assert not set('\\:*?"<>|\0') & set(path)
        assert all(len(part.encode()) <= 255 for part in parts)


IDS = {"plain": "smollm2-1.0", "longest": "a" * 90, "plus": "a+b_c.d-1"}
NO_IDS = {
    "empty": "",
    "slash": "a/b",
    "dot": ".a",
    "newline at the end": "a\n",
    "space": "a b",
    "longer": "a" * 91,
    "umlaut": "ü",
    "drive": "c:",
}


@pytest.mark.parametrize("name", IDS.values(), ids=IDS)
def test_a_release_id(name: str) -> None:
    assert msgspec.convert(name, names.ReleaseId) == name


@pytest.mark.parametrize("name", NO_IDS.values(), ids=NO_IDS)
def test_no_release_id(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, names.ReleaseId)


def test_the_longest_name_of_a_target_is_one_on_every_file_system() -> None:
    longest = "a" * names.MOST_ID_CHARS
    path = names.target_path(names.delta_target(longest, longest), DIGEST)
    assert all(len(part) <= 255 for part in path.split("/"))


def test_paths_in_the_repository() -> None:
    assert names.pack_path(DIGEST) == f"packs/ab/{DIGEST}.pack"
    assert names.target_path(names.release_target("a-1"), DIGEST) == f"targets/releases/{DIGEST}.a-1.json"
    assert names.target_path(names.channel_target("stable"), DIGEST) == f"targets/channels/{DIGEST}.stable.json"
    assert names.delta_target("a-1", "a-2") == "deltas/a-1..a-2.json"


@given(st.text(alphabet=string.ascii_letters + string.digits + "._+-", min_size=1, max_size=20))
def test_a_folder_of_a_release_is_a_portable_name(name: str) -> None:
    try:
        msgspec.convert(name, names.ReleaseId)
    except msgspec.ValidationError:
        return
    assert ".." not in f"{name}.{DIGEST[:12]}".split("/")
