"""The warden: a small process of its own that is the only parent of attempts.

It starts what the worker tells it, ends what it is told to end, and says that an attempt is over
when its containment has been seen empty, never before (see `orders`). It holds the lock of its
folder as long as anything of its attempts is left, so that two wardens never own one folder. It has
one thread, no workflow in its head, and imports nothing that is not needed for this. What happens
to attempts is in `keeper`; here is the process: its folder, lock, kind of containment and socket.

    python -m grampus.worker.warden --dir DIR/worker --slots N
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

import msgspec

from grampus.errors import GrampusError, Refused
from grampus.worker import cgroup
from grampus.worker.capture import DEFAULT_CAP, clear_slots
from grampus.worker.cgroup import Cgroup
from grampus.worker.containment import Containment, PidNamespace, Subreaper, become_subreaper
from grampus.worker.keeper import Keeper
from grampus.worker.orders import Ended, Launch
from grampus.worker.process_tree import marked
from grampus.worker.slot import Slot
from grampus.worker.stderr import log

LOCK = "warden.lock"
#: How long a containment may take to prove itself, in seconds.
_PROBE = 5.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="grampus.worker.warden")
    parser.add_argument("--dir", required=True, help="folder of the worker")
    parser.add_argument("--slots", required=True, type=int)
    kinds = ("auto", PidNamespace.name, Cgroup.name, Subreaper.name)
    parser.add_argument("--containment", choices=kinds, default="auto")
    parser.add_argument("--output-cap", type=int, default=DEFAULT_CAP, help="bytes per stream")
    options = parser.parse_args(argv)
    if options.slots < 1 or options.output_cap < 4096:
        parser.error("at least one slot, and at least 4096 bytes of output")
    try:
        _serve(options.dir, options.slots, options.output_cap, options.containment)
    except (GrampusError, OSError) as error:
        log(str(error))
        return error.exit_code if isinstance(error, GrampusError) else 70
    return 0


def _serve(folder: str, count: int, cap: int, kind: str) -> None:
    _shed_descriptors()
    folder = os.path.abspath(folder)
    attempts = os.path.join(folder, "attempts")
    os.makedirs(attempts, 0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    os.chdir("/")
    lock = _own(folder)
    instance = os.urandom(8).hex()
    _end_leftovers(lock, instance)
    # Whoever loses a shim, and with it the nearest reaper, falls to this process.
    become_subreaper()
    signals = _catch_signals()
    clear_slots(attempts)
    gc.collect()
    gc.freeze()
    containment = _choose(kind, Slot(0, attempts, cap, instance), lock, instance)
    slots = [Slot(k, attempts, cap, instance) for k in range(count)]
    Keeper(slots, instance, lock, containment, folder, cap).run(signals)
    if isinstance(containment, Cgroup):
        _remove(containment)


def _shed_descriptors() -> None:
    """Nothing that was open by chance may reach an attempt."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if null > 0:
        os.close(null)


def _own(folder: str) -> int:
    """Takes the folder's lock, as soon as nothing of an earlier warden runs; whoever started this
    process waits no longer than it likes, and ends it."""
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log("waiting: another warden still has attempts in this folder")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _end_leftovers(lock: int, instance: str) -> None:
    """The lock holds the instance of its owner, and its cgroup if it has one. What an owner left
    that was killed is ended first: a dying PID namespace lets go of the lock a moment before it is
    empty."""
    before, folder = _signed(lock)
    said = False
    while before:
        cleared = not cgroup.is_of(folder, before) or cgroup.clear(folder)
        pids = marked(before)
        if cleared and not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if not said:
            log(f"ending what an earlier warden left: {pids}" + ("" if cleared else f", {folder}"))
            said = True
        time.sleep(0.01)
    os.ftruncate(lock, 0)
    _sign(lock, instance)


def _sign(lock: int, instance: str, folder: str = "") -> None:
    """`folder`: of its cgroup. The file says which file it is: a copy of it speaks for nobody."""
    os.pwrite(lock, f"{instance} {os.fstat(lock).st_ino}\n{folder}\n".encode(), 0)


def _signed(lock: int) -> tuple[str, str]:
    """Instance and cgroup of the owner before; "" when there was none, and in a copied folder: its
    original may have a warden that lives."""
    owner, _, folder = os.pread(lock, 4096, 0).decode("utf-8", "replace").strip().partition("\n")
    instance, _, inode = owner.partition(" ")
    return (instance, folder) if inode == str(os.fstat(lock).st_ino) else ("", "")


def _catch_signals() -> socket.socket:
    """SIGTERM, SIGINT and SIGHUP become bytes on a socket."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    return ours


def _choose(kind: str, slot: Slot, lock: int, instance: str) -> Containment:
    """The containment asked for; `auto` is the first kind in which an attempt succeeds."""
    makers: dict[str, Callable[[], Containment]] = {
        PidNamespace.name: PidNamespace,
        Cgroup.name: lambda: _make_cgroup(lock, instance),
    }
    for name, make in makers.items():
        if kind in ("auto", name):
            try:
                return _probed(name, make, slot, lock)
            except Refused as error:
                if kind == name:
                    raise
                log(str(error))
    if kind == "auto":
        log(f"taking {Subreaper.name}")
    return Subreaper()


def _make_cgroup(lock: int, instance: str) -> Containment:
    """The next warden is told of it first."""
    containment = Cgroup(cgroup.path(instance))
    _sign(lock, instance, containment.folder)
    try:
        containment.open()
    except OSError:
        _remove(containment)
        raise
    return containment


def _remove(containment: Cgroup) -> None:
    """What cannot be removed in time is left to the next warden."""
    deadline = time.monotonic() + _PROBE
    while not cgroup.clear(containment.folder) and time.monotonic() < deadline:
        time.sleep(0.001)


def _probed(name: str, make: Callable[[], Containment], slot: Slot, lock: int) -> Containment:
    try:
        containment = make()
    except OSError as error:
        reason = error.strerror or str(error)
        raise Refused(f"containment {name} does not work here ({reason})") from None
    try:
        _probe(containment, slot, lock)
    except Refused:
        if isinstance(containment, Cgroup):
            _remove(containment)
        raise
    return containment


def _probe(containment: Containment, slot: Slot, lock: int) -> None:
    """Runs a real attempt that does nothing. Refused, with the reason, when it does not succeed."""
    program = next((p for p in ("/bin/true", "/usr/bin/true") if os.path.exists(p)), "/bin/sh")
    argv = [program] if program != "/bin/sh" else [program, "-c", ":"]
    launch = Launch(0, argv, {}, "/", None, 0, "probe")
    reason = "its attempt did not end"
    try:
        channel = slot.fork(containment, lock)
        slot.start(launch, msgspec.msgpack.encode(launch), None)
        channel.flush()
        if select.select([channel], [], [], _PROBE)[0]:
            answers = channel.receive()
            if not answers:
                reason = "see the line before"
            elif (end := msgspec.msgpack.decode(answers[0], type=Ended)).exit == 0:
                return
            else:
                reason = end.error or f"its attempt ended with {end.exit}"
    except OSError as error:
        reason = error.strerror or str(error)
    finally:
        slot.condemn()
        while not slot.reap():
            time.sleep(0.001)
    raise Refused(f"containment {containment.name} does not work here ({reason})")


if __name__ == "__main__":
    sys.exit(main())
