"""Runs one program of a stranger with as little as the platform lets us leave it. A program of its own: stdlib only.

    python -I confine.py PROGRAM CPU_S MEMORY_BYTES FILE_BYTES

Everywhere: limits of CPU time, memory, size and number of files; no new processes (Linux does not hold root to that).
Where Linux allows it to this user: no network and no sight of other processes (namespaces of its own), and no file is
written, removed or made outside of the working folder (Landlock). What cannot be had is left out, so this is no
prison: who runs programs of strangers beside secrets wants a virtual machine.
"""

import contextlib
import ctypes
import os
import resource
import struct
import sys

_OPEN_FILES = 64
# linux/sched.h
_NEW_IPC, _NEW_USER, _NEW_PID, _NEW_NET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
# linux/landlock.h: the rights that change files (truncating came with version 3), and system calls 444 to 446, whose
# numbers are the same on every architecture.
_WRITE, _REMOVE_OR_MAKE, _TRUNCATE = 1 << 1, sum(1 << bit for bit in range(4, 13)), 1 << 14
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVS = 38


def main(program: str, cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Give everything up, then become the program."""
    if sys.platform == "linux":
        _leave_the_system()
        _write_only_here()
    for what, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some; a lower limit may be set already
            resource.setrlimit(what, (most, most))
    os.execv(sys.executable, [sys.executable, "-I", "-B", program])  # noqa: S606 - the point of it


def _leave_the_system() -> None:
    """No network, and as the first process of its own world: all it starts ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC | _NEW_PID) != 0:
        return
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write_only_here() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return
    rights = _WRITE | _REMOVE_OR_MAKE | (_TRUNCATE if version >= 3 else 0)
    handled = struct.pack("=Q", rights)
    rules = libc.syscall(_CREATE_RULESET, handled, len(handled), 0)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, here), 0)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(_RESTRICT_SELF, rules, 0)


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:5]))
