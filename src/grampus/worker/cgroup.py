"""The containment `cgroup`: the processes of each slot are in a cgroup v2 folder of their own.

    HOME/grampus-<instance>/slot<K>     the shim of slot K and all that its attempt has started
    HOME/grampus-<instance>/shims       a shim that just ends what is in its slot

HOME is the warden's own cgroup, or the mount where that is not its to use. Whoever is born in a
folder stays in it, whatever its parents, sessions and environment become; `cgroup.kill` reaches all
of it in one step, those too that are being forked. A shim that ends its attempt steps out first,
and back in when the folder is empty: nothing is moved as long as attempts end by themselves.

A task with the right to write there can move itself out. Therefore the shim is a subreaper too:
signals go to its descendants as well, and an attempt is over only when the folder is empty and the
shim has no child left. Folders of a warden that was killed are ended and removed by the next one,
which has their name from the lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator

from grampus.worker.containment import become_subreaper
from grampus.worker.process_tree import descendants

_PREFIX = "grampus-"
#: Who does not stand still so soon is signalled while it moves, in seconds.
_FREEZE = 0.02


class Cgroup:
    name = "cgroup"

    def __init__(self, folder: str) -> None:
        #: Of this warden; its name is `path`.
        self.folder = folder
        # In the shim.
        self._slot = ""
        self._aside = self._inside = self._events = self._kill = self._freeze = -1
        #: The shim stands aside of its slot's folder.
        self._outside = False

    def open(self) -> None:
        """In the warden, first. OSError says why it cannot be."""
        os.mkdir(self.folder, 0o755)
        os.mkdir(self._shims)
        if not os.access(f"{self._shims}/cgroup.kill", os.W_OK):
            raise OSError(2, "there is no cgroup.kill, which Linux has since 5.14")

    def fork(self, slot: int) -> int:
        folder = self._of(slot)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        pid = os.fork()
        if pid == 0:
            self._slot = folder
        return pid

    def enter(self) -> None:
        become_subreaper()
        self._aside = os.open(f"{self._shims}/cgroup.procs", os.O_WRONLY)
        self._inside = os.open(f"{self._slot}/cgroup.procs", os.O_RDWR)
        self._events = os.open(f"{self._slot}/cgroup.events", os.O_RDONLY)
        self._kill = os.open(f"{self._slot}/cgroup.kill", os.O_WRONLY)
        self._freeze = os.open(f"{self._slot}/cgroup.freeze", os.O_WRONLY)
        # Out once: who must not step out could not kill.
        os.write(self._aside, b"0")
        os.write(self._inside, b"0")

    def signal(self, number: int) -> None:
        if not self._outside:
            os.write(self._aside, b"0")
            self._outside = True
        if number == signal.SIGKILL:
            os.write(self._kill, b"1")
            _send(number, descendants(os.getpid()))
            return
        # Frozen, so that nobody is born who is not in the list.
        os.write(self._freeze, b"1")
        try:
            deadline = time.monotonic() + _FREEZE
            while b"frozen 1" not in self._state() and time.monotonic() < deadline:
                os.sched_yield()
            _send(number, {*_members(self._slot), *descendants(os.getpid())})
        finally:
            os.write(self._freeze, b"0")

    def empty(self) -> bool:
        if not self._outside:
            return os.pread(self._inside, 64, 0) == b"%d\n" % os.getpid()
        # The kill goes on after it was written.
        if b"populated 0" not in self._state():
            return False
        os.write(self._inside, b"0")
        self._outside = False
        return True

    def end(self, slot: int) -> bool:
        return _ended(self._of(slot))

    def _state(self) -> bytes:
        return os.pread(self._events, 4096, 0)

    @property
    def _shims(self) -> str:
        return f"{self.folder}/shims"

    def _of(self, slot: int) -> str:
        return f"{self.folder}/slot{slot}"


def path(instance: str) -> str:
    """The folder for a warden of this instance. OSError when there is none that may be used."""
    for home in _homes():
        if os.access(home, os.W_OK | os.X_OK) and os.access(f"{home}/cgroup.procs", os.W_OK):
            return f"{home}/{_PREFIX}{instance}"
    found = ", ".join(_homes())
    raise OSError(1, f"not ours to write: {found}" if found else "no cgroup v2 is mounted")


def is_of(folder: str, instance: str) -> bool:
    """Whether a name that was read somewhere is that of a folder of this instance."""
    return os.path.isabs(folder) and os.path.basename(folder) == f"{_PREFIX}{instance}"


def clear(folder: str) -> bool:
    """KILL to all that is in it, or, when it is empty, removes it. True when it is gone."""
    if not os.path.isdir(folder):
        return True
    if not _ended(folder):
        return False
    try:
        for each in reversed([folder, *_below(folder)]):
            os.rmdir(each)
    except OSError:
        # Of a mount that is read-only now: an empty folder does no harm.
        return not os.access(folder, os.W_OK)
    return True


def _ended(folder: str) -> bool:
    """True when nothing is in it; else it gets KILL, and is asked again."""
    try:
        if b"populated 0" in _read(f"{folder}/cgroup.events"):
            return True
        kill = os.open(f"{folder}/cgroup.kill", os.O_WRONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        os.write(kill, b"1")
    except OSError:
        return False  # It was removed a moment ago, or it is not ours any more.
    finally:
        os.close(kill)
    return False


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue  # Gone, or of another user: who cannot be ended is reported as stuck.


def _members(folder: str) -> Iterator[int]:
    """Processes in it and in folders below, which an attempt may have made."""
    for each in (folder, *_below(folder)):
        with contextlib.suppress(OSError):
            # 0 is a process that has no number here.
            yield from (pid for pid in map(int, _read(f"{each}/cgroup.procs").split()) if pid)


def _below(folder: str) -> list[str]:
    """The folders below, parents first."""
    found = [folder]
    for each in found:
        with contextlib.suppress(OSError), os.scandir(each) as entries:
            found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found[1:]


def _homes() -> list[str]:
    """Where a folder may be made: this process's cgroup, and the mount that it is seen by."""
    own = next(
        (
            line[3:]
            for line in _read("/proc/self/cgroup").decode().splitlines()
            if line.startswith("0::")
        ),
        "/",
    )
    homes: list[str] = []
    for line in _read("/proc/self/mountinfo").decode().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            root, mount = (_unescape(text) for text in before.split()[3:5])
            inner = own if root == "/" else own.removeprefix(root) if _within(own, root) else "/"
            homes += [(mount + inner).rstrip("/"), mount]
    return list(dict.fromkeys(home for home in homes if os.path.isdir(home)))


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _unescape(text: str) -> str:
    """Spaces and the like are octal numbers in mountinfo."""
    for code in (" ", "\t", "\n", "\\"):
        text = text.replace(f"\\{ord(code):03o}", code)
    return text


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
