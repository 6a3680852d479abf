"""The program of a prepared process: it imports a user's module once, and forks the shims of warm
slots, which fork one process per attempt.

    prepared process ── shim, init of a PID namespace ── attempt, a fork with the module in memory

It runs in a containment of its own, below a shim of the warden, and everything that it forks is
within it. It never calls the user's function and never sees an attempt's inputs. What it cannot
share honestly it declines, and attempts start cold: a module that says `GRAMPUS_WARM = False`, that
fails, that has started Python threads or opened files and sockets, or that is too large.

Every page that a fork touches costs a copy: what runs in one before the user's function is chosen
for touching little (`_signal` instead of the enums of `signal`, no `pathlib`).

The conversation with the warden (`stock`) is one datagram per message, on an inherited socket.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import contextlib
import gc
import importlib
import os
import resource
import signal
import socket
import stat
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import FrameType
from typing import Any, NoReturn

import msgspec

from grampus.model.workflow import Python, Task
from grampus.tasks import runner
from grampus.tasks.failure import one_line
from grampus.tasks.spec import Input, Spec, decode_spec, encode_spec
from grampus.worker.capture import SlotFiles
from grampus.worker.containment import PidNamespace
from grampus.worker.orders import Launch
from grampus.worker.shim import Shim
from grampus.worker.stock import Declined, Prepared, Rise

#: A module with whose import the process is larger than so many bytes is not kept in memory.
MEMORY_LIMIT = 512 << 20
#: Of the code that runs in every attempt: after so many times Python has adapted it.
_REHEARSALS = 20
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
#: What the module has made of each signal.
Handlers = list[tuple[int, Callable[[int, FrameType | None], object] | int]]
_ALL = [int(number) for number in signal.valid_signals()]
#: What a shim changes for itself.
_CHANGED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def main() -> None:
    """argv: number of the socket, folder of the bundle, module."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    bundle, module = sys.argv[2:4]
    sys.argv = [module]
    sys.path.insert(0, bundle)
    before = _descriptors()
    reason = _import(module) or _unfit(module, before)
    sys.stdout.flush()
    sys.stderr.flush()
    control.send(msgspec.msgpack.encode(Declined(reason) if reason else Prepared()))
    if not reason:
        _serve(control)
    # Nothing of the user's runs at the end: attempts do that, each for itself.
    os._exit(0)


def _import(name: str) -> str:
    """Why it cannot be imported, or empty. An attempt that starts cold tells the user."""
    try:
        importlib.import_module(name)
    except BaseException as error:
        traceback.print_exc()
        return one_line(error)
    return ""


def _unfit(name: str, before: set[int]) -> str:
    if getattr(sys.modules[name], "GRAMPUS_WARM", True) is False:
        return "it says GRAMPUS_WARM = False"
    if threading.active_count() > 1:
        return "its import starts threads"
    opened = [fd for fd in _descriptors() - before if not _is_device(fd)]
    if opened:
        return "its import leaves files or sockets open"
    with open("/proc/self/statm", "rb") as file:
        size = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if size > MEMORY_LIMIT:
        return f"it takes {size >> 20} MiB"
    return ""


def _serve(control: socket.socket) -> None:
    """Until the warden is gone."""
    decode = msgspec.msgpack.Decoder(Rise).decode
    handlers = _handlers()
    _rehearse()
    gc.collect()
    gc.freeze()
    shared = _descriptors() - {control.fileno()}
    while True:
        data, fds, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            return
        order = decode(data)
        pid = _fork()
        if pid == 0:
            _midwife(control, order, fds[0], handlers, shared)
        os.close(fds[0])
        os.waitpid(pid, 0)


def _rehearse() -> None:
    """Attempts without an effect, so that what Python learns about code that runs often, and what
    it loads when it is first needed, is there before the forks and costs none of them a copy."""
    task = Task("rehearsal", Python("grampus.tasks.value:is_json", {"value": "{{ run.id }}"}))
    spec = Spec(
        run="", workflow="", version=0, task=task, attempt=0, fencing_token=0, params={}, tick=0,
        tz="UTC", bundle=None, inputs={"": Input("json", b"null")},
    )  # fmt: skip
    arguments = runner.plain_arguments(decode_spec(encode_spec(spec)))
    argv, output = sys.argv, os.memfd_create("rehearsal", os.MFD_CLOEXEC)
    for _ in range(_REHEARSALS):
        os.environ["GRAMPUS_OUTPUT"] = f"/proc/self/fd/{output}"
        runner.main(spec, arguments)
        runner.main(spec)
        del os.environ["GRAMPUS_OUTPUT"]
    sys.argv = argv
    os.close(output)


def _midwife(
    control: socket.socket, order: Rise, fd: int, handlers: Handlers, shared: set[int]
) -> NoReturn:
    """Between the prepared process and a shim. It has one thread, as a new user namespace needs it,
    whatever threads the module's libraries have."""
    code = 70
    try:
        control.close()
        containment = PidNamespace()
        if containment.nest() == 0:
            sock = socket.socket(fileno=fd)
            me = os.pidfd_open(os.getpid())
            socket.send_fds(sock, [b"+"], [me])
            os.close(me)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            files = SlotFiles(order.attempts, order.slot, order.cap)
            WarmShim(containment, sock, files, order.mark, handlers, shared).serve()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


class WarmShim(Shim):
    """A shim whose attempts are forks of itself."""

    def __init__(
        self,
        containment: PidNamespace,
        sock: socket.socket,
        files: SlotFiles,
        mark: str,
        handlers: Handlers,
        shared: set[int],
    ) -> None:
        super().__init__(containment, sock, files, mark)
        self._handlers = handlers
        #: Descriptors that attempts do not get, from and to.
        self._closed = _gaps(shared)
        self._collections = 0

    def _spawn(self, launch: Launch) -> int:
        """What can be done before the fork is: in the shim it costs no copy of a page."""
        if launch.spec is None:
            raise ValueError("its spec is missing")
        spec = decode_spec(launch.spec)
        arguments = runner.plain_arguments(spec)
        self._collections = _collections()
        # The rest is what the module was imported with, and what it has made of it.
        for name, text in (*launch.env.items(), *self._added_for(launch).items()):
            if name.startswith("GRAMPUS_"):
                os.environ[name] = text
        opened: list[int] = []
        # A TERM that comes at once waits until the attempt would hear it.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL)
        try:
            opened.append(os.open(self._files.stdout, _APPEND))
            opened.append(os.open(self._files.stderr, _APPEND))
            pid = _fork()
            if pid == 0:
                self._become_attempt(spec, arguments, opened)
            return pid
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            for fd in opened:
                os.close(fd)

    def _become_attempt(
        self, spec: Spec, arguments: Mapping[str, Any] | None, opened: list[int]
    ) -> NoReturn:
        code = 70
        try:
            os.setsid()
            for stream, fd in enumerate(opened, 1):
                os.dup2(fd, stream)
            for low, high in self._closed:
                os.closerange(low, high)
            _signal.set_wakeup_fd(-1)
            for number, handler in self._handlers:
                _signal.signal(number, handler)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            _reseed()
            gc.freeze()  # What the shim has is none of the garbage of this attempt.
            code = runner.main(spec, arguments)
            _finish(self._collections)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code & 0xFF)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code & 0xFF)


def _finish(before: int) -> None:
    """What Python does at its end, as far as a user can see it: threads are waited for, `atexit`
    runs, files that nobody refers to are closed. `before`: `_collections` at the fork."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # While no garbage was collected in this attempt, all that it has made is young; a collection of
    # all gives memory back besides, which touches much.
    gc.collect(0 if _collections() == before else 2)


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def _handlers() -> Handlers:
    """Without those that were not installed from Python: nothing can be said about them."""
    found = ((int(number), _signal.getsignal(number)) for number in _CHANGED)
    return [(number, handler) for number, handler in found if handler is not None]


def _reseed() -> None:
    """`random` reseeds itself at a fork. numpy does not: every attempt would draw the same."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _fork() -> int:
    """From 3.12 on Python warns of a fork of a process with threads: BLAS sees to its own."""
    if sys.hexversion < 0x030C0000:
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _descriptors() -> set[int]:
    """What is open above stderr."""
    with os.scandir("/proc/self/fd") as entries:
        found = {int(entry.name) for entry in entries}
    return {fd for fd in found if fd > 2 and _is_open(fd)}


def _gaps(kept: set[int]) -> list[tuple[int, int]]:
    """What lies between these and stderr, and beyond them."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    edges = [2, *sorted(kept), limit]
    return [(low + 1, high) for low, high in pairwise(edges) if low + 1 < high]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False  # The one by which the folder was read.
    return True


def _is_device(fd: int) -> bool:
    return stat.S_ISCHR(os.fstat(fd).st_mode)
