"""Which files certain devices need on a stick."""

import random
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import PublishError
from edgekit.release.channel import Channel, Device, RampStep
from edgekit.release.channel import parse as parse_channel
from edgekit.release.manifest import MAX_PACK_BYTES
from edgekit.release.names import channel_target, delta_target, release_target
from export.publish import bundles
from export.publish.bundles import (
    EVERYBODY,
    Group,
    Selection,
    Shelf,
    groups_of,
    groups_since,
    select,
    shelf_of,
    stick_problem,
)
from export.publish.repository import Repository as Published
from tests.export.publish.fleets import report
from tests.repositories import NOW, Repository

MB = 1 << 20


def content(version: int) -> dict[str, bytes]:
    """Three megabytes of which each version changes a byte of the second and one of the third."""
    first = random.Random(0).randbytes(3 * MB)
    changed = bytes([version])
    return {
        "bundle.json": b"{}",
        "model.data": first[: MB + 10] + changed + first[MB + 11 : 2 * MB + 7] + changed + first[2 * MB + 8 :],
    }


@pytest.fixture(scope="module")
def made() -> Repository:
    """tiny 1.0, 2.0 and 3.0, with differences from 1.0 and 2.0 to 3.0; a LoRA beside; three channels."""
    repository = Repository()
    one, two, three = (repository.add_release("tiny", f"{i}.0", content(i)) for i in (1, 2, 3))
    repository.add_delta(one, three)
    repository.add_delta(two, three)
    lora = repository.add_release("tone", "1", {"adapter.json": b"{}"}, kind="adapter", base="tiny")
    repository.set_channel("stable", three.id, previous=one.id)
    repository.set_channel("slow", three.id, previous=one.id, ramp=(RampStep(0, 10),))
    repository.set_channel("tone", lora.id)
    repository.publish()
    return repository


@pytest.fixture
def folder(made: Repository, tmp_path: Path) -> Path:
    return made.write(tmp_path / "repo")


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    return shelf_of(Published.open(folder))


def chosen(shelf: Shelf, *groups: Group, **more: Any) -> Selection:
    return select(shelf, groups, now=NOW, channels=more.pop("channels", ("stable",)), **more)


def packs(selection: Selection) -> int:
    return sum(piece.size for piece in selection.pieces if piece.path.endswith(".pack"))


def having(*releases: str, name: str = "d", **labels: str) -> Group:
    return Group(name, frozenset(releases), ("d",), Device(id="d", labels=labels))


def paths(selection: Selection) -> str:
    return "\n".join(piece.path for piece in selection.pieces)


def test_everything_that_a_device_follows_is_there_and_the_timestamp_is_the_last(shelf: Shelf) -> None:
    found = chosen(shelf)
    assert [fit.group.name for fit in found.fits] == [EVERYBODY]
    assert found.pieces[-1].path == "metadata/timestamp.json"
    names = [piece.path for piece in found.pieces]
    for role in ("1.root", "1.targets", "2.releases", "2.rollout", "2.snapshot"):
        assert f"metadata/{role}.json" in names
    kinds = [path.split("/")[0] for path in names]
    assert kinds == sorted(kinds, key=["packs", "targets", "metadata"].index)


def test_a_new_device_gets_a_whole_release_and_nothing_that_it_does_not_need(shelf: Shelf) -> None:
    found = chosen(shelf)
    assert 3 * MB < packs(found) < 3.1 * MB
    assert "..tiny-3.0" not in paths(found)
    assert paths(found).count("targets/releases/") == 1
    assert paths(found).count("targets/channels/") == 1


def test_the_whole_root_chain_is_there(made: Repository, tmp_path: Path) -> None:
    other = made.copy()
    for _ in range(3):
        other.rotate("timestamp", *other.keys["timestamp"])
    names = paths(chosen(shelf_of(Published.open(other.write(tmp_path / "repo")))))
    assert [f"metadata/{i}.root.json" in names for i in range(1, 6)] == [True] * 4 + [False]


def test_since_a_release_it_is_the_differences(shelf: Shelf) -> None:
    found = chosen(shelf, *groups_since(["tiny-2.0"], shelf))
    assert "tiny-2.0..tiny-3.0.json" in paths(found)
    assert "tiny-1.0..tiny-3.0.json" not in paths(found)
    [fit] = found.fits
    assert packs(found) < 10_000
    assert fit.bytes < 20_000


def test_a_difference_is_taken_only_from_what_is_there(shelf: Shelf) -> None:
    found = chosen(shelf, having("unheard-of-1"))
    assert packs(found) == packs(chosen(shelf))
    assert ".." not in paths(found)


def test_who_has_the_release_needs_only_to_hear_of_it(shelf: Shelf) -> None:
    found = chosen(shelf, having("tiny-3.0"))
    assert packs(found) == 0
    assert found.fits[0].bytes == len(shelf.targets[release_target("tiny-3.0")])


def test_g06_one_stick_holds_what_any_of_its_devices_needs(shelf: Shelf) -> None:
    groups = [having("tiny-1.0", name="a"), having("tiny-2.0", name="b"), having(name="c")]
    together = {piece.path for piece in chosen(shelf, *groups).pieces}
    for group in groups:
        assert {piece.path for piece in chosen(shelf, group).pieces} <= together


def test_all_channels_unless_some_are_said(shelf: Shelf) -> None:
    assert paths(chosen(shelf, channels=())).count("targets/channels/") == 3
    assert "tone-1.json" in paths(chosen(shelf, channels=("tone",)))
    assert packs(chosen(shelf, channels=("tone",))) < 1000


def test_a_release_that_no_channel_names_can_be_added(shelf: Shelf) -> None:
    found = chosen(shelf, channels=("tone",), releases=("tiny-2.0",))
    assert [fit.release for fit in found.fits] == ["tone-1", "tiny-2.0"]


def test_devices_whose_turn_has_not_come_and_that_have_nothing_get_the_one_before(shelf: Shelf) -> None:
    assert [fit.release for fit in chosen(shelf, channels=("slow",)).fits] == ["tiny-3.0", "tiny-1.0"]
    assert [fit.release for fit in chosen(shelf, having("tiny-2.0"), channels=("slow",)).fits] == ["tiny-3.0"]
    assert [fit.release for fit in chosen(shelf).fits] == ["tiny-3.0"]


@pytest.mark.parametrize(
    ("changed", "releases"),
    [
        ({"abort_to": "tiny-1.0"}, ["tiny-1.0"]),
        ({"pause": True}, ["tiny-3.0"]),  # it may have ended when the stick arrives
        ({"ramp": (RampStep(0, 0),)}, ["tiny-3.0"]),
    ],
)
def test_what_a_channel_may_come_to_mean_on_the_way(
    made: Repository, tmp_path: Path, changed: dict[str, Any], releases: list[str]
) -> None:
    other = made.copy()
    other.set_channel("stable", "tiny-3.0", **changed)
    other.publish()
    found = chosen(shelf_of(Published.open(other.write(tmp_path / "repo"))), having("tiny-2.0"))
    assert [fit.release for fit in found.fits] == releases


def test_a_channel_for_other_labels_costs_a_device_nothing(made: Repository, tmp_path: Path) -> None:
    from edgekit.release.channel import Labels

    other = made.copy()
    other.set_channel("stable", "tiny-3.0", labels=Labels(allow={"site": ("lyon",)}))
    other.publish()
    shelf = shelf_of(Published.open(other.write(tmp_path / "repo")))
    assert chosen(shelf, having("tiny-1.0", site="oslo")).fits == ()
    assert len(chosen(shelf, having("tiny-1.0", site="lyon")).fits) == 1


# --- G2 ---


def test_g02_every_file_fits_onto_fat(shelf: Shelf) -> None:
    found = chosen(shelf, channels=())
    assert max(piece.size for piece in found.pieces) <= MAX_PACK_BYTES
    assert all(stick_problem(piece.path) is None for piece in found.pieces)


@pytest.mark.parametrize(
    "path",
    [
        "a" * 256,
        f"targets/deltas/{'a' * 251}.json",
        "x/con.json",
        "x/a:b",
        "x/a.",
        "x/a\u0308",
        "x/a\\b",
        "x/a b ",
    ],
)
def test_g02_names_that_no_stick_holds(path: str) -> None:
    assert stick_problem(path)


def test_g02_the_longest_names_that_a_repository_can_have_fit(tmp_path: Path) -> None:
    repository = Repository()
    one, two = (repository.add_release("n" * 60, f"{i}{'v' * 28}", content(i)) for i in (1, 2))
    repository.add_delta(one, two)
    repository.set_channel("stable", two.id)
    repository.publish()
    shelf = shelf_of(Published.open(repository.write(tmp_path / "repo")))
    assert max(len(piece.path) for piece in chosen(shelf, having(one.id)).pieces) > 255
    with pytest.raises(PublishError, match="shorter name"):
        bundles._pieces(shelf, [], {"deltas/" + "x" * 300 + ".json": b""})


# --- what cannot be ---


@pytest.mark.parametrize(
    ("more", "said"), [({"channels": ("nope",)}, "no channel nope"), ({"releases": ("nope-1",)}, "nope-1")]
)
def test_what_is_not_there_is_said(shelf: Shelf, more: dict[str, Any], said: str) -> None:
    with pytest.raises(PublishError, match=said):
        chosen(shelf, **more)


def test_since_a_release_that_is_not_listed_is_said(shelf: Shelf) -> None:
    with pytest.raises(PublishError, match="tiny-9"):
        groups_since(["tiny-9"], shelf)


@pytest.mark.parametrize("target", [channel_target("stable"), release_target("tiny-3.0")])
def test_a_damaged_repository_is_not_copied(folder: Path, target: str) -> None:
    name = target.rpartition("/")[2]
    [path] = [path for path in folder.rglob(f"*.{name}") if ".." not in path.name]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PublishError, match="damaged"):
        shelf_of(Published.open(folder))


# --- groups ---


def test_devices_with_the_same_are_one_group() -> None:
    reports = [report("a", have=("x-1", "y-1")), report("b", have=("y-1", "x-1")), report("c", have=("x-1",))]
    found = groups_of(reports, [Device(id="new", labels={})])
    assert [(group.name, group.devices) for group in found] == [
        ("new with nothing", ("new",)),
        ("c with x-1", ("c",)),
        ("2 devices with x-1, y-1", ("a", "b")),
    ]


def test_devices_with_other_labels_are_another_group() -> None:
    silent = [
        Device(id=name, labels=labels) for name, labels in (("a", {"s": "1"}), ("b", {"s": "2"}), ("c", {"s": "1"}))
    ]
    assert [group.devices for group in groups_of([], silent)] == [("a", "c"), ("b",)]


def test_differences_are_listed_for_those_that_have_several_bases(shelf: Shelf) -> None:
    found = chosen(shelf, having("tiny-1.0", "tiny-2.0"))
    for base in ("tiny-1.0", "tiny-2.0"):
        assert delta_target(base, "tiny-3.0").rpartition("/")[2] in paths(found)


def test_a_channel_is_as_it_was_signed(shelf: Shelf) -> None:
    [piece] = [piece for piece in chosen(shelf).pieces if "channels/" in piece.path]
    found: Channel = parse_channel(bytes(piece.raw or b""))
    assert found.release == "tiny-3.0"
