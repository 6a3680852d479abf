"""The shim of a warm slot: its attempts are forks of itself, with the user's module in memory.

Rule: what can be done before the fork is done by the shim, because there it costs no copy of a
page; but nothing of the user's, no pickle and no rich template. It is forked in `prepared`.

Every page that a fork touches costs a copy: what runs in one before the user's function is chosen
for touching little (`_signal` instead of the enums of `signal`, no `pathlib`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from types import FrameType
from typing import Any, NoReturn

from grampus.model.workflow import Python, Task
from grampus.tasks import runner
from grampus.tasks.spec import Input, Spec, decode_spec, encode_spec
from grampus.worker.capture import SlotFiles
from grampus.worker.containment import PidNamespace
from grampus.worker.orders import Launch
from grampus.worker.shim import Shim
from grampus.worker.spare import Orders, Spare, wait_for_orders

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
#: What the module has made of each signal.
Handlers = list[tuple[int, Callable[[int, FrameType | None], object] | int]]
#: Spec, arguments if they are known, and standard streams.
Beginning = tuple[Spec, Mapping[str, Any] | None, list[int]]
_ALL = [int(number) for number in signal.valid_signals()]


class Rehearsal:
    """Attempts without an effect, so that what Python learns about code that runs often, and what
    it loads when it is first needed, is there before the forks and costs none of them a copy."""

    def __init__(self) -> None:
        task = Task("rehearsal", Python("grampus.tasks.value:is_json", {"value": "{{ run.id }}"}))
        spec = Spec(
            run="", workflow="", version=0, task=task, attempt=0, fencing_token=0, params={},
            tick=0, tz="UTC", bundle=None, inputs={"": Input("json", b"null")},
        )  # fmt: skip
        self._spec = encode_spec(spec)

    def play(self, times: int) -> None:
        argv, output = sys.argv, os.memfd_create("rehearsal", os.MFD_CLOEXEC)
        for _ in range(times):
            os.environ["GRAMPUS_OUTPUT"] = f"/proc/self/fd/{output}"
            spec = decode_spec(self._spec)
            if times > 1:
                runner.main(spec, runner.plain_arguments(spec))
            runner.main(spec)
            del os.environ["GRAMPUS_OUTPUT"]
        sys.argv = argv
        os.close(output)


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
        rehearsal: Rehearsal,
    ) -> None:
        super().__init__(containment, sock, files, mark)
        self._handlers = handlers
        #: Descriptors that attempts do not get, from and to.
        self._closed = _gaps(shared)
        self._rehearsal = rehearsal
        self._spare: Spare | None = None
        #: A spare would come in handy.
        self._wanted = False

    def _stand_by(self) -> None:
        self._wanted = True

    def _rest(self) -> int | None:
        if self._wanted and self._spare is None:
            self._wanted = False
            try:
                with _signals_blocked():
                    self._spare = Spare.fork(fork, self._become_spare)
            except OSError:
                return None  # Then the next attempt is an ordinary fork, or says why it cannot be.
        if self._spare is None:
            return None
        left = self._spare.left()
        if left > 0:
            return left
        self._spare.end()
        self._spare = None
        return None

    def _spawn(self, launch: Launch) -> int:
        self._wanted = False
        if launch.spec is None:
            raise ValueError("its spec is missing")
        # The rest is what the module was imported with, and what it has made of it.
        given = (*launch.env.items(), *self._added_for(launch).items())
        env = {name: text for name, text in given if name.startswith("GRAMPUS_")}
        orders = Orders(launch.spec, env, launch.cwd)
        streams: list[int] = []
        try:
            streams.append(os.open(self._files.stdout, _APPEND))
            streams.append(os.open(self._files.stderr, _APPEND))
            spare, self._spare = self._spare, None
            if spare is not None and spare.send(orders, streams):
                return spare.pid
            return self._fork_for(orders, streams)
        finally:
            for fd in streams:
                os.close(fd)

    def _fork_for(self, orders: Orders, streams: list[int]) -> int:
        """What can be done before the fork is: in the shim it costs no copy of a page."""
        spec = decode_spec(orders.spec)
        arguments = runner.plain_arguments(spec)
        os.environ.update(orders.env)
        # A TERM that comes at once waits until the attempt would hear it.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL)
        try:
            pid = fork()
            if pid == 0:
                self._live(lambda: (spec, arguments, streams))
            return pid
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def _become_spare(self, sock: socket.socket) -> NoReturn:
        def wait() -> Beginning:
            self._rehearsal.play(1)
            orders, streams = wait_for_orders(sock)
            os.chdir(orders.cwd)
            os.environ.update(orders.env)
            return decode_spec(orders.spec), None, streams

        self._live(wait)

    def _live(self, begin: Callable[[], Beginning]) -> NoReturn:
        """All that a fork does, with signals blocked until the user's function may hear them."""
        code = 70
        try:
            os.setsid()
            _signal.set_wakeup_fd(-1)
            for number, handler in self._handlers:
                _signal.signal(number, handler)
            _reseed()
            spec, arguments, streams = begin()
            for stream, fd in enumerate(streams, 1):
                os.dup2(fd, stream)
            for low, high in self._closed:
                os.closerange(low, high)
            gc.freeze()  # What the shim has is none of the garbage of this attempt.
            before = _collections()
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            code = runner.main(spec, arguments)
            _finish(before)
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


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL)
    try:
        yield
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


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


def _reseed() -> None:
    """`random` reseeds itself at a fork. numpy does not: every attempt would draw the same."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def fork() -> int:
    """From 3.12 on Python warns of a fork of a process with threads: BLAS sees to its own."""
    if sys.hexversion < 0x030C0000:
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _gaps(kept: set[int]) -> list[tuple[int, int]]:
    """What lies between these and stderr, and beyond them."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    edges = [2, *sorted(kept), limit]
    return [(low + 1, high) for low, high in pairwise(edges) if low + 1 < high]
