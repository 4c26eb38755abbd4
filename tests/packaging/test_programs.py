"""What the tests start is installed only where nobody has to be asked."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import programs
import pytest
from environment import SetupError
from screen import Screen

Machine = Callable[..., list[list[str]]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A machine that has some programs, and a list of what apt was told."""

    def make(*there: str, user: int = 0) -> list[list[str]]:
        ran: list[list[str]] = []

        def apt(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            assert (tmp_path / "policy-rc.d").read_text().endswith("exit 101\n"), "a service could have been started"
            ran.append(command)
            return subprocess.CompletedProcess(command, 0, "")

        monkeypatch.setattr("shutil.which", lambda name, **_: f"/bin/{name}" if name in there else None)
        monkeypatch.setattr("os.geteuid", lambda: user, raising=False)
        monkeypatch.setattr("subprocess.run", apt)
        return ran

    monkeypatch.setattr(programs, "POLICY", tmp_path / "policy-rc.d")
    return make


def test_what_is_there_is_used(machine: Machine) -> None:
    ran = machine("google-chrome", "nginx", "docker-registry", "faketime")
    programs.ensure(Screen(sys.stderr))
    assert ran == []
    assert programs.find(programs.CHROMIUM) == "/bin/google-chrome"


def test_what_is_missing_is_installed_by_root_and_no_service_is_started(machine: Machine) -> None:
    ran = machine("apt-get", "chromium", "faketime")
    programs.ensure(Screen(sys.stderr))
    assert ran == [
        ["/bin/apt-get", "-q", "update"],
        ["/bin/apt-get", "-q", "install", "-y", "nginx-light", "docker-registry"],
    ]
    assert not programs.POLICY.exists()


def test_a_policy_that_is_there_stays(machine: Machine) -> None:
    programs.POLICY.write_text("#!/bin/sh\n# the owner's\nexit 101\n")
    machine("apt-get")
    programs.ensure(Screen(sys.stderr))
    assert "the owner's" in programs.POLICY.read_text()


@pytest.mark.parametrize(
    ("there", "user", "said"),
    [
        (
            ("apt-get", "nginx"),
            1000,
            r"apt-get install chromium docker-registry faketime.*-m 'not browser and not programs'",
        ),
        (("nginx", "chromium", "faketime"), 0, r"an OCI registry.*-m 'not programs'"),
    ],
)
def test_where_a_person_has_to_do_it_the_command_is_said(
    machine: Machine, there: tuple[str, ...], user: int, said: str
) -> None:
    ran = machine(*there, user=user)
    with pytest.raises(SetupError, match=said):
        programs.ensure(Screen(sys.stderr))
    assert ran == []


def test_a_failed_install_says_what_apt_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("apt-get")
    failed = subprocess.CompletedProcess([], 100, "E: Unable to locate package")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: failed)
    with pytest.raises(SetupError, match="Unable to locate"):
        programs.ensure(Screen(sys.stderr))
    assert not programs.POLICY.exists()
