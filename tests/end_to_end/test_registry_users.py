"""Registries that ask who is there: by the command line, with names and passwords, logins and tokens."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.activation.records import Verdict
from device_agent.sync import composing
from edgekit.cli import main
from edgekit.errors import NotAdmitted, NotInRepository
from tests.device_agent.bundles import TINY
from tests.end_to_end.tokens import BASIC, PASSWORD, USER, Tokens
from tests.export.publish.test_pipeline import version
from tests.servers import registry

pytestmark = pytest.mark.programs

HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
"""bcrypt of the password, as `htpasswd -B` writes it."""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials end at once, and well."""
    monkeypatch.setattr(composing, "ChildProbe", lambda *_, **__: lambda *_: Verdict(ok=True))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`edgekit` with a home of its own; exit code, standard output and error."""
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("EDGEKIT_KEY_PASSPHRASE", "EDGEKIT_REGISTRY_USER", "EDGEKIT_REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def facts(ran: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = ran
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def login(folder: Path, host: str, password: str = PASSWORD) -> None:
    """What `docker login` leaves."""
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}, "credsStore": ""}))


def test_from_publish_to_a_device_by_a_user_and_a_password(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    repo = tmp_path / "repo"
    assert run("repo", "init", repo)[0] == 0
    publish = ("publish", TINY, "--repo", repo, "--channel", "stable")
    with registry(tmp_path / "registry", more=f"auth: {{htpasswd: {{realm: r, path: {tmp_path}/htpasswd}}}}") as host:
        tag = f"{host}/models/tiny:stable"
        address = f"oci://{USER}:{PASSWORD.replace(' ', '%20')}@{tag}"

        code, _, err = run(*publish, "--oci", tag)
        assert code == 72
        assert f"{host} asks who we are: set EDGEKIT_REGISTRY_USER" in err
        assert f"It is published in {repo}, and `edgekit repo push {repo} {tag}` goes on" in err
        monkeypatch.setenv("EDGEKIT_REGISTRY_USER", USER)
        monkeypatch.setenv("EDGEKIT_REGISTRY_PASSWORD", "wrong")
        code, _, err = run("repo", "push", repo, tag)
        assert code == 72
        assert f"{host} does not let us push to models/tiny as {USER} (401)" in err
        monkeypatch.setenv("EDGEKIT_REGISTRY_PASSWORD", PASSWORD)
        found = facts(run(*publish, "--oci", tag, "--json"))
        assert found["already"]
        assert found["pushed"]["sent_bytes"] > 200_000
        monkeypatch.delenv("EDGEKIT_REGISTRY_USER")

        for wrong, error, why in (
            (f"oci://{tag}", NotAdmitted, "asks who we are"),
            (f"oci://{USER}:x@{tag}", NotAdmitted, "does not take this device's user name and password"),
            (f"{address}-2", NotInRepository, "does not have the tag stable-2"),
        ):
            code, _, err = run("sync", "--once", "--repo", wrong)
            assert code == error.exit_code
            assert why in err
            assert PASSWORD not in err
        code, out, err = run("sync", "--once", "--repo", address)
        assert code == 0, err
        assert "tiny-llama-1" in out

        # Later: what was learnt when it was enrolled, then the settings, which count more.
        assert run("sync", "--once")[0] == 0
        (tmp_path / "home" / "edgekit.toml").write_text(f'[sync]\nrepositories = ["{address}"]\n')
        facts(run("publish", version(tmp_path / "2", "2"), "--repo", repo, "--percent", "0", "--json"))
        facts(run("channel", "set", "stable", "--repo", repo, "--percent", "100", "--json"))
        assert "is the newest" in run("sync", "--once")[1]
        login(tmp_path / "docker", host)
        assert facts(run("repo", "push", repo, tag, "--json"))["release"] == "tiny-llama-2"
        code, out, err = run("sync", "--once", "--json")
        assert code == 0, err
        (outcome,) = json.loads(out)["outcomes"]
        assert (outcome["ending"], outcome["release"]) == ("installed", "tiny-llama-2")
        assert outcome["moved_bytes"] < 10_000


def test_a_token_server_is_told_the_same_user(run: Run, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assert run("repo", "init", repo)[0] == 0
    facts(run("publish", TINY, "--repo", repo, "--json"))
    with Tokens(tmp_path) as tokens, registry(tmp_path / "registry", more=tokens.auth) as host:
        tag = f"{host}/models/tiny:stable"
        code, _, err = run("repo", "push", repo, tag)
        assert code == 72
        assert f"{host} gives somebody without a name no token (401)" in err
        login(tmp_path / "docker", host, "wrong")
        code, _, err = run("repo", "push", repo, tag)
        assert f"{host} gives {USER} no token (401)" in err
        login(tmp_path / "docker", host)
        assert facts(run("repo", "push", repo, tag, "--json"))["sent_bytes"] > 200_000
        assert tokens.asked[-1] == BASIC

        assert "gives no token (401)" in run("sync", "--once", "--repo", f"oci://{tag}")[2]
        address = f"oci://{USER}:{PASSWORD.replace(' ', '%20')}@{tag}"
        code, out, err = run("sync", "--once", "--check", "--repo", address, "--json")
        assert code == 0, err
        assert json.loads(out)["offers"][0]["release"] == "tiny-llama-1"


def test_a_registry_that_is_down_is_said_in_a_sentence(run: Run, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assert run("repo", "init", repo)[0] == 0
    facts(run("publish", TINY, "--repo", repo, "--json"))
    with registry(tmp_path / "registry") as host:
        pass
    code, _, err = run("repo", "push", repo, f"{host}/models/tiny:stable")
    assert code == 72
    assert f"This cannot be published: {host}: nobody answers there" in err
    code, _, err = run("repo", "push", repo, f"{host}/models/tiny:stable", "--channel", "beta")
    assert code == 2
    assert "there is no channel beta; there are: stable" in err
