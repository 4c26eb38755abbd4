"""What a program of a stranger can and cannot do. Programs here are strangers: some try hard."""

import ctypes
import os
import select
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.errors import UsageError
from export.evaluate import sandbox

SHORT = sandbox.Limits(cpu_s=1, wall_s=3.0, memory_bytes=512 << 20, file_bytes=1 << 16)


@dataclass(frozen=True)
class Program:
    name: str
    text: str
    tests: str
    passes: bool


PROGRAMS = (
    Program("right", "def f(x):\n    return x + 1", "assert f(1) == 2\nassert f(2) == 3", passes=True),
    Program("wrong", "def f(x):\n    return x", "assert f(1) == 2", passes=False),
    Program("second test fails", "def f(x):\n    return 2", "assert f(1) == 2\nassert f(2) == 3", passes=False),
    Program("not Python", "def f(", "", passes=False),
    Program("talkative", "print('hello', end='')", "assert True", passes=True),
    Program("leaves early", "import sys\nsys.exit(0)", "assert False", passes=False),
    Program("leaves at once", "import os\nos._exit(0)", "assert False", passes=False),
    Program("runs for ever", "while True:\n    pass", "", passes=False),
    Program("waits for ever", "import time\ntime.sleep(1000)", "", passes=False),
    Program("takes memory", "x = bytearray(1 << 30)", "", passes=False),
    Program("fills the disk", "while True:\n    print('x' * 1000)", "", passes=False),
    Program("writes a large file", "open('x', 'wb').write(bytes(1 << 20))", "", passes=False),
    Program("writes a small file", "open('x', 'w').write('x')", "assert open('x').read() == 'x'", passes=True),
    Program("reads from a person", "input()", "", passes=False),
    Program("surrogates", "x = '\udc80'", "", passes=True),
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_passes_if_its_tests_run_to_the_end(program: Program) -> None:
    assert sandbox.passes(program.text, program.tests, SHORT) is program.passes


def test_a_program_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    (tmp_path / "module_of_ours.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert sandbox.passes("import os", "assert 'SECRET' not in os.environ", SHORT)
    assert not sandbox.passes("import module_of_ours", "", SHORT)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sandbox.passes("open('x', 'w').write('x')", "", SHORT)
    assert list(tmp_path.iterdir()) == []


OUTLIVING = {
    "waits for ever": "open({pipe!r}).read()",
    "leaves a child that waits": "import os\nif os.fork() == 0:\n    open({pipe!r}).read()",
    "leaves a child elsewhere": "import os\nif os.fork() == 0:\n    os.setsid()\n    open({pipe!r}).read()",
}


@pytest.mark.parametrize("name", OUTLIVING)
def test_no_process_outlives_its_test(name: str, tmp_path: Path) -> None:
    """Limits forbid to start another process; where they do not bind (root), all end together."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ours = os.open(pipe, os.O_RDWR)  # so that neither side waits for the other to open
    writing = os.open(pipe, os.O_WRONLY)
    sandbox.passes(OUTLIVING[name].format(pipe=str(pipe)), "", sandbox.Limits(wall_s=1.5))
    os.close(ours)
    poll = select.poll()
    poll.register(writing, 0)
    gone = poll.poll(10_000)  # an error event: nobody reads this pipe any more
    os.close(writing)
    assert gone


def available(code: str) -> bool:
    """Whether a bare process may do this here: containers often forbid namespaces, old kernels have no Landlock."""
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_there_is_no_network_where_the_system_can_take_it_away() -> None:
    isolated = available("import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x78000000))")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connects = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)"
        assert sandbox.passes(connects, "", SHORT) is not isolated


def test_files_elsewhere_stay_as_they_are_where_the_system_can_protect_them(tmp_path: Path) -> None:
    protected = sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, 0, 1) >= 3
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for attack in ("os.remove(v)", "open(v, 'w')", "os.truncate(v, 0)", "os.rename(v, v + '2')", "os.mkdir(v + 'd')"):
        assert sandbox.passes(f"import os\nv = {str(victim)!r}\n{attack}", "", SHORT) is not protected
        if protected:
            assert victim.read_text() == "precious"
            assert list(tmp_path.iterdir()) == [victim]
        victim.write_text("precious")


def test_a_system_without_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.check_platform()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs Linux or macOS"):
        sandbox.check_platform()
