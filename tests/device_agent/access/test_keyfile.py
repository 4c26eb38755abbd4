"""Keys on disk: private, durable, shared by the command line and a running agent."""

import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from device_agent.access.keyfile import ADMIN_TOKEN, KEYS, KeyFile, admin_token
from device_agent.access.keys import ADMIN_ID, KeyWish, new_secret
from edgekit.errors import InvalidRequest, RouteError, StorageFailed, UsageError

WISH = KeyWish(name="Field app")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_for_its_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    KeyFile.open(home).add(WISH)
    assert mode_of(home) == 0o700
    assert {mode_of(path) for path in home.iterdir()} == {0o600}


def test_a_new_key_opens_and_a_revoked_one_is_known_as_such(tmp_path: Path) -> None:
    file = KeyFile.open(tmp_path)
    key, secret = file.add(WISH)
    assert file.find(secret) == key
    assert file.named(key.id) == key
    assert file.revoke(key.id).revoked_at is not None
    found = file.find(secret)
    assert found is not None
    assert found.revoked_at is not None
    assert KeyFile.open(tmp_path).all() == (found,)


def test_a_running_agent_sees_what_another_process_changes(tmp_path: Path) -> None:
    agent, command = KeyFile.open(tmp_path), KeyFile.open(tmp_path)
    key, secret = command.add(WISH)
    assert agent.find(secret) == key
    command.revoke(key.id)
    found = agent.find(secret)
    assert found is not None
    assert found.revoked_at is not None


def test_nobody_overwrites_what_another_has_just_added(tmp_path: Path) -> None:
    secrets: list[str] = []

    def add() -> None:
        file = KeyFile.open(tmp_path)
        secrets.extend(file.add(WISH)[1] for _ in range(5))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file = KeyFile.open(tmp_path)
    assert len(file.all()) == 20
    assert all(file.find(secret) for secret in secrets)


def test_a_damaged_file_stops_the_start_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / KEYS).write_text("{")
    with pytest.raises(UsageError, match=r"keys\.json is no file of keys"):
        KeyFile.open(tmp_path)
    assert (tmp_path / KEYS).read_text() == "{"


def test_a_file_damaged_under_a_running_agent_changes_nothing_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile.open(tmp_path)
    key, secret = file.add(WISH)
    (tmp_path / KEYS).write_text("{")
    assert file.find(secret) == key
    assert file.find(secret) == key
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_file_that_is_deleted_revokes_every_key_but_the_admin_token(tmp_path: Path) -> None:
    file = KeyFile.open(tmp_path)
    _, secret = file.add(WISH)
    (tmp_path / KEYS).unlink()
    assert file.find(secret) is None
    assert file.find(admin_token(tmp_path)) is not None


def test_revoking_what_is_not_there_says_so(tmp_path: Path) -> None:
    file = KeyFile.open(tmp_path)
    with pytest.raises(RouteError, match="key_1"):
        file.revoke("key_1")
    with pytest.raises(InvalidRequest, match=ADMIN_TOKEN):
        file.revoke(ADMIN_ID)


def test_a_disk_that_takes_no_keys_is_an_error_and_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KeyFile.open(tmp_path)
    key, secret = file.add(WISH)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="No space"):
        file.add(WISH)
    with pytest.raises(StorageFailed, match="No space"):
        file.revoke(key.id)
    monkeypatch.undo()
    assert file.find(secret) == key
    assert file.all() == (key,)


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed):
        KeyFile.open(tmp_path / "file" / "home")


# --- the admin token ------------------------------------------------------------------------


def test_the_admin_token_is_made_once_and_opens_everything(tmp_path: Path) -> None:
    file = KeyFile.open(tmp_path)
    token = (tmp_path / ADMIN_TOKEN).read_text().strip()
    found = file.find(token)
    assert found is not None
    assert (found.id, set(found.scopes)) == (ADMIN_ID, {"infer", "admin"})
    assert file.named(ADMIN_ID) == found
    KeyFile.open(tmp_path)
    assert (tmp_path / ADMIN_TOKEN).read_text().strip() == token


def test_two_first_starts_at_once_agree_on_one_token(tmp_path: Path) -> None:
    found: set[str] = set()
    gate = threading.Barrier(8)

    def begin() -> None:
        gate.wait()
        found.add(admin_token(tmp_path))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {(tmp_path / ADMIN_TOKEN).read_text().strip()}
    assert [path.name for path in tmp_path.iterdir()] == [ADMIN_TOKEN]


def test_a_token_that_another_process_makes_between_two_looks_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = f"{new_secret()}\n".encode()
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == ADMIN_TOKEN and not path.exists():
            path.write_bytes(theirs)
            raise FileNotFoundError
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert admin_token(tmp_path) == theirs.decode().strip()


def test_the_token_is_private_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.link

    def link(source: Path, target: Path) -> None:
        modes.append(mode_of(source))
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    admin_token(tmp_path)
    assert modes == [0o600]


def test_a_token_that_others_could_read_is_closed_to_them_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = admin_token(tmp_path)
    (tmp_path / ADMIN_TOKEN).chmod(0o644)
    assert admin_token(tmp_path) == token
    assert mode_of(tmp_path / ADMIN_TOKEN) == 0o600
    assert "other users could read" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize("left", [b"", b"\n", b"ek-", b"\xff\xfe", b"secret"])
def test_a_token_file_without_a_token_gets_one(tmp_path: Path, left: bytes) -> None:
    (tmp_path / ADMIN_TOKEN).write_bytes(left)  # an empty token would let everybody in
    token = admin_token(tmp_path)
    assert len(token) == 46
    assert admin_token(tmp_path) == token
    assert mode_of(tmp_path / ADMIN_TOKEN) == 0o600


def test_a_disk_without_links_has_a_token_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert admin_token(tmp_path) == admin_token(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ADMIN_TOKEN]
