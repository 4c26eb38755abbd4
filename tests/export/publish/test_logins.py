"""Whom a registry is told that we are."""

import json
from pathlib import Path

import pytest

from edgekit.errors import UsageError
from export.publish.logins import credentials_for
from export.publish.registry import NOBODY, Credentials

TILL = Credentials(user="till", password="open: sesame")
AUTH = {"auth": "dGlsbDpvcGVuOiBzZXNhbWU="}


def written(folder: Path, text: str) -> dict[str, str]:
    (folder / "config.json").write_text(text)
    return {"DOCKER_CONFIG": str(folder)}


def test_the_environment_counts_first(tmp_path: Path) -> None:
    environment = written(tmp_path, json.dumps({"auths": {"r.example": AUTH}}))
    environment |= {"EDGEKIT_REGISTRY_USER": "me", "EDGEKIT_REGISTRY_PASSWORD": "mine"}
    assert credentials_for("r.example", environment) == Credentials(user="me", password="mine")


@pytest.mark.parametrize("name", ["r.example:5000", "https://r.example:5000", "https://r.example:5000/v1/"])
def test_a_login_is_found_by_its_host(tmp_path: Path, name: str) -> None:
    environment = written(tmp_path, json.dumps({"auths": {"other.example": {}, name: AUTH}, "HttpHeaders": {"a": "b"}}))
    assert credentials_for("r.example:5000", environment) == TILL
    assert credentials_for("r.example", environment) == NOBODY


def test_a_login_may_be_written_out(tmp_path: Path) -> None:
    environment = written(tmp_path, '{"auths": {"r.example": {"username": "till", "password": "open: sesame"}}}')
    assert credentials_for("r.example", environment) == TILL


def test_docker_keeps_its_logins_at_home(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    written(tmp_path / ".docker", json.dumps({"auths": {"r.example": AUTH}}))
    assert credentials_for("r.example", {"HOME": str(tmp_path)}) == TILL


@pytest.mark.parametrize("text", ["{}", '{"auths": {}}', '{"auths": {"r.example": {}}, "credsStore": "desktop"}'])
def test_what_only_a_program_knows_is_not_known(tmp_path: Path, text: str) -> None:
    assert credentials_for("r.example", written(tmp_path, text)) == NOBODY
    assert credentials_for("r.example", {"DOCKER_CONFIG": str(tmp_path / "none")}) == NOBODY


@pytest.mark.parametrize("text", ["", "[]", '{"auths": {"r.example": "till"}}'])
def test_a_file_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"config\.json is not what `docker login` writes"):
        credentials_for("r.example", written(tmp_path, text))


def test_a_login_that_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    environment = written(tmp_path, '{"auths": {"r.example": {"auth": "\\u00e9"}, "s.example": {"auth": "bm8="}}}')
    assert credentials_for("r.example", environment) == NOBODY
