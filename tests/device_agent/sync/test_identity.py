"""Who this device is: random, kept for life, for nobody else's eyes."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from device_agent.sync.identity import DAMAGED, FILE, FOLDER, Identity, enrol, read_identity
from edgekit.errors import EdgekitError, StorageFailed, TrustLost, UsageError
from edgekit.release.provisioning import Provisioning

PROVISIONING = Provisioning(format=1, root='{"signed": {}}', labels={"site": "lyon", "ring": "1"}, report="https://r/")


def path(home: Path) -> Path:
    return home / FOLDER / FILE


def enrolled(home: Path, *, device_id: str | None = None, **labels: str) -> Identity:
    return enrol(home, PROVISIONING, device_id=device_id, labels=labels)


def test_a_device_that_was_never_enrolled_is_nobody(tmp_path: Path) -> None:
    assert read_identity(tmp_path / "home") is None
    assert not (tmp_path / "home").exists()


def test_it_is_remembered(tmp_path: Path) -> None:
    made = enrolled(tmp_path / "a" / "home", floor="2")
    assert read_identity(tmp_path / "a" / "home") == made
    assert made.provisioning == PROVISIONING
    assert made.device.labels == {"site": "lyon", "ring": "1", "floor": "2"}


def test_ids_are_random_and_so_are_secrets(tmp_path: Path) -> None:
    first, second = (enrolled(tmp_path / name) for name in ("a", "b"))
    assert len(bytes.fromhex(first.device.id)) == 16
    assert len(first.secret) == 32
    assert first.device.id != second.device.id
    assert first.secret != second.secret


def test_enrolling_again_keeps_id_secret_and_the_labels_given_here(tmp_path: Path) -> None:
    first = enrolled(tmp_path, site="oslo", floor="2", old="1")
    other = msgspec.structs.replace(PROVISIONING, channels=("beta",), labels={"site": "rome", "new": "x"})
    second = enrol(tmp_path, other, device_id=None, labels={"floor": "3", "old": ""})
    assert (second.device.id, second.secret) == (first.device.id, first.secret)
    assert second.provisioning == other
    assert second.device.labels == {"site": "oslo", "new": "x", "floor": "3"}
    assert read_identity(tmp_path) == second


def test_an_owner_may_choose_the_id_once(tmp_path: Path) -> None:
    assert enrolled(tmp_path, device_id="till-7").device.id == "till-7"
    assert enrolled(tmp_path, device_id="till-7").device.id == "till-7"
    with pytest.raises(UsageError, match="till-7"):
        enrolled(tmp_path, device_id="till-8")
    assert read_identity(tmp_path) == enrolled(tmp_path)


@pytest.mark.parametrize("device_id", ["", "../x", "con", "a b", "x" * 101])
def test_an_id_that_cannot_name_a_file_is_refused_before_anything_is_written(tmp_path: Path, device_id: str) -> None:
    with pytest.raises(UsageError):
        enrolled(tmp_path / "home", device_id=device_id)
    assert not (tmp_path / "home").exists()


def test_a_label_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label"):
        enrolled(tmp_path, site="x" * 101)
    assert read_identity(tmp_path) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    enrolled(home)
    assert stat.S_IMODE(path(home).stat().st_mode) == 0o600
    assert stat.S_IMODE((home / FOLDER).stat().st_mode) == 0o700


def test_the_secret_is_in_no_text_but_the_enrolment(tmp_path: Path) -> None:
    found = enrolled(tmp_path, device_id="till-7")
    assert found.secret.hex() not in repr(found)
    assert str(found.secret) not in repr(found)
    assert found.enrolment().secret == found.secret.hex()
    assert found.enrolment().device == "till-7"
    assert found.enrolment().labels == {"site": "lyon", "ring": "1"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:0],
        lambda raw: raw[:-20],
        lambda raw: b"\0" * len(raw),
        lambda raw: raw.replace(b'"format":1', b'"format":9'),
        lambda raw: raw.replace(b'"till-7"', b'"../x"'),
        lambda raw: raw.replace(b'"till-7"', b'"con"'),
        lambda raw: raw + b" " * (3 << 20),
    ],
    ids=["empty", "cut", "zeros", "newer", "path", "reserved", "endless"],
)
def test_a_damaged_file_is_said_and_is_no_fresh_start(tmp_path: Path, damage: object) -> None:
    secret = enrolled(tmp_path, device_id="till-7").secret
    path(tmp_path).write_bytes(damage(path(tmp_path).read_bytes()))  # type: ignore[operator]
    with pytest.raises(TrustLost, match="damaged") as caught:
        read_identity(tmp_path)
    assert secret.hex() not in str(caught.value)


def test_enrolling_over_a_damaged_file_puts_it_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = enrolled(tmp_path, device_id="till-7")
    path(tmp_path).write_bytes(b"{")
    second = enrolled(tmp_path, device_id="till-7")
    assert read_identity(tmp_path) == second
    assert second.secret != first.secret
    assert path(tmp_path).with_name(DAMAGED).read_bytes() == b"{"
    assert "put aside" in caplog.text


def test_a_disk_that_fails_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(EdgekitError) as caught:
        enrolled(tmp_path / "home")
    assert isinstance(caught.value, StorageFailed)
