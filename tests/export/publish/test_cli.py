"""The verbs `repo`, `channel` and `publish`, as people and scripts use them."""

import errno
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from edgekit.errors import KeyUnavailable, PublishError, Unreachable, UsageError
from edgekit.release import provisioning
from export.publish import terminal
from export.publish.channel_cli import channel_command
from export.publish.cli import publish_command
from export.publish.repo_cli import repo_command
from export.publish.repository import Repository
from tests.device_agent.bundles import TINY
from tests.export.publish.publishers import DAY, NOW
from tests.export.publish.test_pipeline import version
from tests.imports import ROOT

VERBS: dict[str, click.Command] = {"repo": repo_command, "channel": channel_command, "publish": publish_command}


class Shell:
    """Runs verbs in a folder, at a time of its own; `result` is the last one."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.now = NOW
        self.result: Result | None = None

    def __call__(self, words: str, *more: object) -> Result:
        verb, *rest = (*words.replace("REPO", str(self.repo)).split(), *map(str, more))
        self.result = CliRunner().invoke(VERBS[verb], rest, catch_exceptions=False)
        assert self.result.exit_code == 0, self.result.output
        return self.result

    def json(self, words: str, *more: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(words, *more, "--json").stdout)
        return found


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    shell = Shell(tmp_path)
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    for module in ("cli", "repo_cli", "channel_cli", "keys_cli"):
        monkeypatch.setattr(f"export.publish.{module}.clock", lambda: shell.now)
    return shell


@pytest.fixture
def ready(shell: Shell) -> Shell:
    """With one release in one channel."""
    shell("repo init REPO")
    shell("publish", TINY, "--repo", shell.repo, "--channel", "stable")
    return shell


@pytest.fixture
def third(tmp_path: Path) -> Path:
    """Another version's folder."""
    return version(tmp_path / "3", "3")


def test_a_repository_from_its_first_day_on(shell: Shell) -> None:
    made = shell.json("repo init REPO --root-keys 3")
    assert (made["root_keys"], made["root_threshold"], made["encrypted"]) == (3, 2, False)
    assert shell.result is not None
    assert "not encrypted" in shell.result.stderr
    assert "move the root keys out" in shell.result.stderr
    told = shell.json("publish", TINY, "--repo", shell.repo, "--channel", "stable", "--percent", "10")
    assert told["release"] == "tiny-llama-1"
    assert told["channel"]["ramp"] == [{"not_before": 0, "percent": 10.0}]
    assert told["groups"][0]["bytes"] == told["groups"][0]["full_bytes"] > 100_000
    status = shell.json("repo status REPO")
    assert [role["role"] for role in status["roles"]] == [
        "root",
        "targets",
        "releases",
        "rollout",
        "snapshot",
        "timestamp",
    ]
    assert [role["days_left"] for role in status["roles"]] == [730, 365, 365, 90, 30, 30]
    assert status["channels"] == {"stable": "tiny-llama-1, 10 %"}
    assert shell.json("repo verify REPO")["ok"]
    assert "tiny-llama-1" in shell("repo status REPO").stdout


def test_the_passphrase_of_the_environment_locks_and_opens(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_KEY_PASSPHRASE", "open sesame")
    assert shell.json("repo init REPO")["encrypted"]
    pems = sorted((shell.repo.parent / "repo.keys").glob("*.pem"))
    assert all(b"ENCRYPTED" in pem.read_bytes() for pem in pems)
    shell("repo refresh REPO")
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE")
    with pytest.raises(KeyUnavailable, match="encrypted"):
        shell("repo refresh REPO")


def test_init_takes_keys_that_are_there_and_never_those_inside(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inside of the repository"):
        shell("repo init REPO --keys REPO/keys")
    shell("repo init REPO --keys", tmp_path / "safe")
    shutil.rmtree(shell.repo)
    before = sorted((tmp_path / "safe").iterdir())
    shell("repo init REPO --keys", tmp_path / "safe")
    assert sorted((tmp_path / "safe").iterdir()) == before
    with pytest.raises(PublishError, match="not empty"):
        shell("repo init REPO --keys", tmp_path / "safe")


def test_publish_says_what_devices_fetch_and_why(ready: Shell, tmp_path: Path) -> None:
    out = ready("publish", version(tmp_path / "2", "2"), "--repo", ready.repo, "--channel", "stable").stdout
    assert "tiny-llama-2 is published" in out
    assert "from tiny-llama-1" in out
    assert "new devices" in out
    assert "most of it is" in out
    assert "was published already" in ready("publish", TINY, "--repo", ready.repo).stdout


@pytest.mark.parametrize(
    ("verb", "words", "said"),
    [
        ("publish", (TINY, "--channel", "bad name"), "'bad name' cannot be a channel's name"),
        ("channel set", ("Bad", "--release", "tiny-llama-1"), "'Bad' cannot be a channel's name"),
        ("channel set", ("stable", "--percent", "nan"), "channel stable cannot be so"),
        ("channel set", ("stable", "--note", "x" * 2_001), "channel stable cannot be so"),
    ],
)
def test_what_is_wrong_about_a_channel_changes_nothing(
    ready: Shell, verb: str, words: tuple[str | Path, ...], said: str
) -> None:
    metadata = sorted((ready.repo / "metadata").iterdir())
    with pytest.raises((UsageError, PublishError), match=said):
        ready(verb, *words, "--repo", ready.repo)
    assert sorted((ready.repo / "metadata").iterdir()) == metadata
    assert [one["name"] for one in ready.json("channel show --repo REPO")["channels"]] == ["stable"]


def test_conditions_are_said_in_words(ready: Shell, third: Path) -> None:
    conditions = ["--health", "agreement=0.9", "--health", "speed=4", "--health", "memory=900MB", "--soak", "5"]
    needs = ["--requires", "machine=aarch64|x86_64", "--requires", "memory=1GB"]
    ready("publish", third, "--repo", ready.repo, *conditions, *needs)
    release = Repository.open(ready.repo).releases()["tiny-llama-3"]
    assert (release.health.agreement, release.health.decode_tokens_per_s, release.health.soak_s) == (0.9, 4.0, 5.0)
    assert release.health.rss_bytes == 900_000_000
    assert release.requires.machines == ("aarch64", "x86_64")
    assert release.requires.memory_bytes == 10**9


@pytest.mark.parametrize(
    "words",
    [
        ["--health", "beauty=1"],
        ["--health", "agreement=2"],
        ["--health", "agreement"],
        ["--requires", "memory=much"],
        ["--no-offer", "--percent", "5"],
        ["--channel", "c", "--percent", "5", "--ramp", "2026-12-01:5"],
        ["--channel", "c", "--ramp", "soon:5"],
        ["--channel", "c", "--ramp", "2026-12-01:500"],
        ["--unsigned", "a", "--signed", "b"],
        ["--unsigned", "a", "--oci", "registry.example/tiny:stable"],
        ["--oci", "registry.example/Tiny"],
        ["--verify-url", "oci://registry.example/tiny:stable"],
    ],
)
def test_what_cannot_be_meant_is_said_before_any_work(ready: Shell, third: Path, words: list[str]) -> None:
    with pytest.raises(UsageError):
        ready("publish", third, "--repo", ready.repo, *words)
    assert list(Repository.open(ready.repo).releases()) == ["tiny-llama-1"]


def test_a_channel_is_widened_paused_aborted_and_resumed(ready: Shell) -> None:
    def channel(words: str) -> dict[str, Any]:
        found: dict[str, Any] = ready.json(f"channel set stable --repo REPO {words}")["channel"]
        return found

    first = channel("--percent 5")
    assert channel("--percent 50")["salt"] == first["salt"]
    assert channel("--pause --note checking")["pause"]
    assert "pause" not in channel("--resume")
    assert channel("--abort-to tiny-llama-1")["abort_to"] == "tiny-llama-1"
    assert "ABORTED" in ready("channel show stable --repo REPO").stdout
    assert "abort_to" not in channel("--resume")
    assert channel("--new-salt")["salt"] != first["salt"]
    assert channel("--allow site=lyon --allow site=nice --deny arch=armv7l")["labels"] == {
        "allow": {"site": ["lyon", "nice"]},
        "deny": {"arch": ["armv7l"]},
    }
    assert channel("--allow none --freshness warn")["labels"] == {"deny": {"arch": ["armv7l"]}}
    ramp = channel("--ramp 2026-12-01:5,2026-12-03T06:00:50%")["ramp"]
    assert ramp == [{"not_before": 1_796_083_200, "percent": 5.0}, {"not_before": 1_796_277_600, "percent": 50.0}]
    assert channel("--percent 100")["version"] == 12
    assert ready.json("channel show --repo REPO")["channels"][0]["note"] == "checking"


def test_a_channel_needs_something_to_say(ready: Shell) -> None:
    with pytest.raises(UsageError, match="what is to change"):
        ready("channel set stable --repo REPO")
    with pytest.raises(UsageError, match="no channel beta"):
        ready("channel show beta --repo REPO")
    with pytest.raises(PublishError, match="no channel beta yet"):
        ready("channel set beta --repo REPO --percent 5")
    with pytest.raises(UsageError, match="not a label"):
        ready("channel set stable --repo REPO --allow lyon")


def test_refresh_says_what_it_cannot_sign_and_fails_when_it_is_too_late(ready: Shell, tmp_path: Path) -> None:
    keys = tmp_path / "repo.keys"
    shutil.copytree(keys, tmp_path / "stick")
    for path in [*keys.glob("releases-*"), *keys.glob("root-*")]:
        path.unlink()
    ready.now += 300 * DAY
    assert ready.json("repo refresh REPO")["due"] == ["targets", "releases"]
    assert "end soon" in ready("repo refresh REPO").stderr
    ready.now += 100 * DAY
    with pytest.raises(KeyUnavailable, match="targets, releases have ended"):
        ready("repo refresh REPO")
    done = ready.json("repo refresh REPO --keys", tmp_path / "stick")
    assert done["due"] == []
    ready.now += 200 * DAY
    assert ready.json("repo refresh REPO --keys", tmp_path / "stick")["signed"][0] == "root"
    assert ready.json("repo verify REPO")["versions"]["root"] == 2


def test_a_floor_and_a_withdrawal(ready: Shell, tmp_path: Path) -> None:
    ready("publish", version(tmp_path / "2", "2"), "--repo", ready.repo, "--channel", "stable")
    assert Repository.open(ready.repo).channels()["stable"].previous == "tiny-llama-1"
    assert ready.json("repo floor REPO tiny-llama tiny-llama-2")["floors"] == {"tiny-llama": 2}
    assert Repository.open(ready.repo).channels()["stable"].previous is None
    with pytest.raises(PublishError, match="no release of other"):
        ready("repo floor REPO other tiny-llama-2")
    ready("repo withdraw REPO tiny-llama-1")
    assert ready.json("repo status REPO")["deltas"] == []
    with pytest.raises(PublishError, match="not listed"):
        ready("repo withdraw REPO tiny-llama-1")
    with pytest.raises(PublishError, match="channel stable names tiny-llama-2"):
        ready("repo withdraw REPO tiny-llama-2")
    assert ready.json("repo verify REPO")["releases"] == 1


def test_a_url_that_does_not_show_it_yet_is_no_success(ready: Shell, third: Path, tmp_path: Path) -> None:
    old = tmp_path / "mirror"
    shutil.copytree(ready.repo, old)
    ready("repo verify REPO --url", ready.repo)
    ready("repo verify REPO --url", old)
    with pytest.raises(Unreachable, match="still shows what was published before"):
        ready("publish", third, "--repo", ready.repo, "--verify-url", old)
    assert "tiny-llama-3" in Repository.open(ready.repo).releases()
    with pytest.raises(Unreachable, match="still shows what was published before"):
        ready("repo verify REPO --url", old)
    ready("publish", third, "--repo", ready.repo, "--channel", "stable", "--verify-url", ready.repo)


def test_a_url_where_nobody_answers_is_named_once_and_the_release_is_there(ready: Shell, third: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            ready("publish", third, "--repo", ready.repo, "--verify-url", url)
    said = str(caught.value)
    assert said.startswith(f"The repository cannot be reached: {url}: nobody answers: is there a network?; tiny")
    assert said.count(url) == 1
    assert "tiny-llama-3" in Repository.open(ready.repo).releases()


def test_where_nobody_may_write_the_folder_is_named(ready: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("export.publish.tree.locked", refused)
    with pytest.raises(PublishError, match=f"{ready.repo} cannot be written: Permission denied"):
        ready("channel set stable --repo REPO --pause")


@pytest.mark.parametrize("url", ["ftp://models.example", "models"])
def test_devices_are_not_told_to_look_where_they_cannot(ready: Shell, tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError):
        ready("repo provision REPO", "--url", url, "-o", tmp_path / "told.json")
    assert not (tmp_path / "told.json").exists()


def test_prune_deletes_what_nothing_needs_and_says_so_first(ready: Shell, tmp_path: Path) -> None:
    ready("publish", version(tmp_path / "2", "2"), "--repo", ready.repo, "--channel", "stable")
    for _ in range(12):
        ready("repo refresh REPO")
    ready("channel set stable --repo REPO --release tiny-llama-2 --forget-previous")
    ready("repo withdraw REPO tiny-llama-1")
    (ready.repo / "metadata" / ".timestamp.json.x1y2").write_bytes(b"half")
    planned = ready.json("repo prune REPO --dry-run")
    assert planned["files"] > 5
    assert ready.json("repo verify REPO")["ok"]
    done = ready.json("repo prune REPO")
    assert (done["files"], done["bytes"]) == (planned["files"], planned["bytes"])
    assert not (ready.repo / "metadata" / ".timestamp.json.x1y2").exists()
    assert ready.json("repo verify REPO")["releases"] == 1
    assert ready.json("repo prune REPO")["files"] == 0
    assert ready.json("repo status REPO")["unneeded_files"] == 0


def test_prune_forgets_deltas_to_what_no_channel_offers(ready: Shell, tmp_path: Path) -> None:
    for number in ("2", "3"):
        ready("publish", version(tmp_path / number, number), "--repo", ready.repo, "--channel", "stable")
    ready("channel set stable --repo REPO --release tiny-llama-3 --forget-previous")
    assert len(ready.json("repo status REPO")["deltas"]) == 3
    ready("repo prune REPO")
    assert all(pair[1] == "tiny-llama-3" for pair in ready.json("repo status REPO")["deltas"])
    assert ready.json("repo verify REPO")["deltas"] == 2


def test_what_a_device_is_told(ready: Shell, tmp_path: Path) -> None:
    ready("repo floor REPO tiny-llama tiny-llama-1")
    file = tmp_path / "device.json"
    words = "--url https://example.org/models --channel stable --channel tone --label site=lyon"
    ready(f"repo provision REPO {words} -o", file)
    told = provisioning.parse(file.read_bytes(), path="device.json")
    assert told.root == Repository.open(ready.repo).root().decode()
    assert (told.floors, told.channels, told.labels) == ({"tiny-llama": 1}, ("stable", "tone"), {"site": "lyon"})
    assert told.repositories == ("https://example.org/models",)
    with pytest.raises(UsageError, match="not a label"):
        ready("repo provision REPO --label lyon -o", file)


def test_a_release_goes_round_to_be_signed(ready: Shell, third: Path, tmp_path: Path) -> None:
    keys, file = tmp_path / "repo.keys", tmp_path / "request.json"
    shutil.copytree(keys, tmp_path / "stick")
    for path in keys.glob("releases-*"):
        path.unlink()
    with pytest.raises(KeyUnavailable, match="--unsigned FILE"):
        ready("publish", third, "--repo", ready.repo)
    assert not ready.json("publish", third, "--repo", ready.repo, "--unsigned", file)["published"]
    with pytest.raises(KeyUnavailable, match="none of the keys"):
        ready("repo sign", file, "--keys", keys, "--yes")
    signed = ready("repo sign", file, "--keys", tmp_path / "stick", "--yes")
    assert "releases/tiny-llama-3.json" in signed.stderr
    done = ready.json("publish", third, "--repo", ready.repo, "--signed", file, "--channel", "beta")
    assert done["channel"]["release"] == "tiny-llama-3"
    assert ready.json("repo verify REPO")["releases"] == 2


def test_a_person_may_say_no(ready: Shell, third: Path, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    ready("publish", third, "--repo", ready.repo, "--unsigned", file)
    before = file.read_bytes()
    done = CliRunner().invoke(repo_command, ["sign", str(file), "--keys", str(tmp_path / "repo.keys")], input="n\n")
    assert done.exit_code == 1
    assert file.read_bytes() == before


ROTATIONS: dict[str, Callable[[Shell], object]] = {
    "timestamp": lambda shell: shell.json("repo keys rotate REPO timestamp"),
    "rollout": lambda shell: shell.json("repo keys rotate REPO rollout"),
    "releases": lambda shell: shell.json("repo keys rotate REPO releases"),
    "root": lambda shell: shell.json("repo keys rotate REPO root"),
    "add-root": lambda shell: shell.json("repo keys add-root REPO --threshold 2"),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_keys_are_rotated_and_listed(ready: Shell, name: str) -> None:
    def keys() -> set[tuple[str, str]]:
        return {(key["role"], key["keyid"]) for key in ready.json("repo keys list REPO")["keys"]}

    before = keys()
    ROTATIONS[name](ready)
    role = "root" if name == "add-root" else name
    assert {role for role, _ in keys() - before} >= {role}
    assert all(key["where"] for key in ready.json("repo keys list REPO")["keys"])
    ready("repo refresh REPO")
    assert ready.json("repo verify REPO")["ok"]
    assert "not at hand" not in ready("repo keys list REPO").stdout


def test_a_root_goes_round_until_it_has_its_signatures(shell: Shell, tmp_path: Path) -> None:
    shell("repo init REPO --root-keys 3")
    keys = tmp_path / "repo.keys"
    for number, pem in enumerate(sorted(keys.glob("root-*.pem"))):
        drawer = tmp_path / f"drawer{number}"
        drawer.mkdir()
        for path in (pem, pem.with_suffix(".json")):
            shutil.move(path, drawer / path.name)
    told = shell.json("repo keys rotate REPO releases --keys", keys, "--keys", tmp_path / "drawer0")
    assert (told["published"], told["lacking"]) == (False, 1)
    assert shell.json("repo verify REPO")["versions"]["root"] == 1
    with pytest.raises(KeyUnavailable, match="none of the keys"):
        shell("repo keys sign", told["request"], "--keys", tmp_path / "drawer0", "--yes")
    done = shell.json("repo keys sign", told["request"], "--keys", tmp_path / "drawer1", "--repo", shell.repo, "--yes")
    assert done["published"]
    assert done["signed"][:3] == ["root", "targets", "releases"]
    assert shell.json("repo verify REPO")["versions"]["root"] == 2
    keyid = next(key["keyid"] for key in shell.json("repo keys list REPO")["keys"] if key["role"] == "root")
    folders = [word for number in range(3) for word in ("--keys", tmp_path / f"drawer{number}")]
    shell("repo keys remove-root REPO", keyid[:8], "--keys", keys, *folders)
    shell("repo keys threshold REPO 1 --keys", keys, *folders)
    with pytest.raises(UsageError, match="2 candidates"):
        shell("repo keys rotate REPO root --keys", keys, *folders)
    assert shell.json("repo verify REPO")["versions"]["root"] == 4


def test_new_passphrases_are_asked_for_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert terminal.new_passphrase() is None


def test_a_device_without_the_build_side_can_still_list_the_verbs() -> None:
    modules = [f"export.publish.{name}" for name in ("cli", "repo_cli", "channel_cli")]
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"cryptography", "tuf", "securesystemslib", "onnx", "onnxruntime", "numpy"} & set(done.stdout.split())
