"""What holds the processes of an attempt together: all of them can be ended, and none is missed.

Two kinds are here, with the same promise: once the shim has no child left, nothing of the attempt
is left. A third one is in `cgroup`.

`pid-namespace`: the shim is the init of a PID namespace with a `/proc` of its own. Whoever loses
its parent becomes a child of the shim, `kill(-1)` reaches everybody, and when the shim dies,
however it dies, the kernel ends all the others. An ordinary user needs a user namespace around it,
in which only his own uid and gid exist: there setuid programs (sudo) are powerless and files of
others seem to belong to nobody.

`subreaper`: the shim is the nearest reaper. Again whoever loses its parent becomes its child, but
they are found by walking `/proc`, and when the shim is killed they fall to the warden, which is a
subreaper too and ends them.

Only the main thread of the warden may fork a shim: the death signal is sent when the forking
*thread* ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from typing import Protocol

from grampus.worker.process_tree import descendants

_CLONE3 = 435
_NEWNS, _NEWUSER, _NEWPID = 0x0002_0000, 0x1000_0000, 0x2000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 2, 4, 8, 0x4000, 0x80000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

# PyDLL keeps the interpreter's lock during a call: the child of clone3 must hold it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Containment(Protocol):
    """How a shim comes to be, and how it reaches everything below it."""

    name: str

    def fork(self, slot: int) -> int:
        """Makes the shim. Returns its pid, and 0 in the shim; OSError when it is not allowed."""
        ...

    def enter(self) -> None:
        """In the shim, before anything else. OSError when the system does not let it."""
        ...

    def signal(self, number: int) -> None:
        """In the shim: to every process of the attempt. Fine when there is none."""
        ...

    def empty(self) -> bool:
        """In the shim, when it has no child left: is nothing left anywhere else?"""
        ...

    def end(self, slot: int) -> bool:
        """In the warden, when the shim of the slot is gone: KILL to what it has left. True when
        there is nothing, but for what has fallen to the warden itself."""
        ...


class PidNamespace:
    name = "pid-namespace"

    def __init__(self) -> None:
        self._uid, self._gid = os.geteuid(), os.getegid()

    def fork(self, slot: int) -> int:
        flags = _NEWPID | _NEWNS | (_NEWUSER if self._uid else 0)
        # flags, pidfd, child_tid, parent_tid, exit_signal, and six that are not used.
        arguments = struct.pack("11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
        pid: int = _libc.syscall(_CLONE3, arguments, ctypes.c_long(len(arguments)))
        if pid < 0:
            raise _error("clone3")
        return pid

    def enter(self) -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self._settle()

    def nest(self) -> int:
        """A shim below a prepared process: in a namespace within that of its caller, which must
        have one thread, and ends. Like `fork`, with two differences: all is done by way of the C
        library, whose handlers at a fork keep such things as the threads of BLAS in order; and
        there is no death signal, because the namespace around it ends this one too."""
        flags = _NEWPID | _NEWNS | (_NEWUSER if self._uid else 0)
        if _libc.unshare(flags) != 0:
            raise _error("unshare")
        pid = os.fork()
        if pid == 0:
            self._settle()
            self._number_apart()
        return pid

    def _settle(self) -> None:
        if self._uid:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{self._uid} {self._uid} 1")
            _write("/proc/self/gid_map", f"{self._gid} {self._gid} 1")
        # What the machine mounts later is seen here too; what is mounted here stays here.
        _mount(b"none", b"/", None, _MS_REC | _MS_SLAVE)
        _mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)

    def _number_apart(self) -> None:
        """Libraries notice a fork by a changed pid: an attempt must not by chance have the one that
        the prepared process has in its namespace, where numbers are small."""
        with contextlib.suppress(OSError):
            _write("/proc/sys/kernel/ns_last_pid", "1000")

    def signal(self, number: int) -> None:
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return

    def empty(self) -> bool:
        return True

    def end(self, slot: int) -> bool:
        return True


class Subreaper:
    name = "subreaper"

    def fork(self, slot: int) -> int:
        return os.fork()

    def enter(self) -> None:
        # No death signal: killed at once, the shim could not end its attempt. The end of its
        # connection tells it that the warden is gone.
        become_subreaper()

    def signal(self, number: int) -> None:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # Gone, or of another user: who cannot be ended is reported as stuck.

    def empty(self) -> bool:
        return True

    def end(self, slot: int) -> bool:
        return True


def become_subreaper() -> None:
    """From now on, descendants that lose their parent become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3) != 0:
        raise _error("prctl")


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None) != 0:
        raise _error(f"mount {target.decode()}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
