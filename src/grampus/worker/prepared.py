"""The program of a prepared process: it imports a user's module once, and forks the shims of warm
slots, which fork one process per attempt.

    prepared process ── shim, init of a PID namespace ── attempt, a fork with the module in memory

It runs in a containment of its own, below a shim of the warden, and everything that it forks is
within it. It never calls the user's function and never sees an attempt's inputs. What it cannot
share honestly it declines, and attempts start cold: a module that says `GRAMPUS_WARM = False`, that
fails, that has started Python threads or opened files and sockets, or that is too large.

The conversation with the warden (`stock`) is one datagram per message, on an inherited socket.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import importlib
import os
import signal
import socket
import stat
import sys
import threading
import traceback
from typing import NoReturn

import msgspec

from grampus.tasks.failure import one_line
from grampus.worker.capture import SlotFiles
from grampus.worker.containment import PidNamespace
from grampus.worker.warm_orders import Declined, Prepared, Rise
from grampus.worker.warm_shim import Handlers, Rehearsal, WarmShim, fork

#: A module with whose import the process is larger than so many bytes is not kept in memory.
MEMORY_LIMIT = 512 << 20
#: Of the code that runs in every attempt: after so many times Python has adapted it.
_REHEARSALS = 20
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
    rehearsal = Rehearsal()
    rehearsal.play(_REHEARSALS)
    gc.collect()
    gc.freeze()
    shared = _descriptors() - {control.fileno()}
    while True:
        data, fds, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            return
        order = decode(data)
        pid = fork()
        if pid == 0:
            _midwife(control, order, fds[0], handlers, shared, rehearsal)
        os.close(fds[0])
        os.waitpid(pid, 0)


def _midwife(
    control: socket.socket,
    order: Rise,
    fd: int,
    handlers: Handlers,
    shared: set[int],
    rehearsal: Rehearsal,
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
            shim = WarmShim(containment, sock, files, order.mark, handlers, shared, rehearsal)
            shim.serve()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _handlers() -> Handlers:
    """Without those that were not installed from Python: nothing can be said about them."""
    found = ((int(number), _signal.getsignal(number)) for number in _CHANGED)
    return [(number, handler) for number, handler in found if handler is not None]


def _descriptors() -> set[int]:
    """What is open above stderr."""
    with os.scandir("/proc/self/fd") as entries:
        found = {int(entry.name) for entry in entries}
    return {fd for fd in found if fd > 2 and _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False  # The one by which the folder was read.
    return True


def _is_device(fd: int) -> bool:
    return stat.S_ISCHR(os.fstat(fd).st_mode)
