"""The shim of a slot: the parent of one attempt after another, and the last process of each.

It is forked from the warden and never becomes another program. It starts an attempt, watches its
output, ends it when it is told to or when its time is over, and reports it when it has no child
left: then nothing of the attempt is left either (see `containment`). When the connection to the
warden ends, it kills what runs and goes.

It hears `Launch`, `Halt` and `StandBy`, and answers `Ended` (ready to be passed on) and
`Struggling`.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Literal, NoReturn

import msgspec
from msgspec import Struct

from grampus.clock import Clock, SystemClock
from grampus.errors import ProtocolError
from grampus.rpc.frames import FrameReader, frame
from grampus.worker.capture import Kept, SlotFiles
from grampus.worker.channel import FRAME_LIMIT, read
from grampus.worker.containment import Containment
from grampus.worker.orders import Ended, Launch
from grampus.worker.process_tree import MARK

#: After KILL was sent in vain for so long the warden is told, and again after as long.
STUCK_AFTER = 10_000
_WATCH, _WATCH_FAST = 250, 50
_KILL_AGAIN, _KILL_AGAIN_MOST = 5, 500
_RESET = {
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGTTIN),
    *(signal.SIGTTOU, signal.SIGALRM, signal.SIGCONT),
}
#: Errors that say what the machine lacks now, not what is wrong with the order.
_LACK = (
    *(errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE),
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO),
)
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW


class Halt(Struct, frozen=True, array_like=True, tag="halt"):
    """End what runs: TERM, and KILL after `grace` ms. Asked again, the shorter one counts."""

    grace: int


class StandBy(Struct, frozen=True, array_like=True, tag="stand-by"):
    """Nothing waits to be started: there is time to make ready what the next attempt will need."""


class Struggling(Struct, frozen=True, array_like=True, tag="struggling"):
    """KILL was sent long ago and processes are still there."""

    n: int


class Attempt:
    """What the shim knows of the one that runs."""

    __slots__ = (
        *("again", "began", "cause", "exit", "kill_at", "kill_next", "launch", "pid", "stuck_at"),
        *("timeout_at", "watch_at"),
    )

    def __init__(self, launch: Launch, pid: int, now: int, began: int) -> None:
        self.launch = launch
        self.pid = pid
        #: In ms since boot.
        self.began = began
        #: Of the main process, once it has been reaped.
        self.exit: int | None = None
        self.cause: Literal["exit", "timeout", "end"] = "exit"
        self.timeout_at = None if launch.timeout is None else now + launch.timeout
        #: Set by TERM.
        self.kill_at: int | None = None
        #: Set by the first KILL: when to send it again.
        self.kill_next: int | None = None
        self.again = _KILL_AGAIN
        self.stuck_at = 0
        self.watch_at = now + _WATCH_FAST

    def wake_at(self) -> int:
        """When there is something to do, if nothing happens before."""
        if self.kill_next is not None:
            return min(self.kill_next, self.stuck_at, self.watch_at)
        soonest = self.watch_at
        if self.kill_at is not None:
            soonest = min(soonest, self.kill_at)
        elif self.timeout_at is not None:
            soonest = min(soonest, self.timeout_at)
        return soonest


def become_shim(
    containment: Containment,
    sock: socket.socket,
    keep: int,
    files: SlotFiles,
    mark: str,
    passed: int | None = None,
) -> NoReturn:
    """The life of a process just forked from the warden; `keep` is a descriptor to hold, `passed`
    one that attempts inherit."""
    code = 70
    try:
        start = 3
        for fd in sorted({sock.fileno(), keep} | ({passed} if passed is not None else set())):
            os.closerange(start, fd)
            start = fd + 1
        os.closerange(start, os.sysconf("SC_OPEN_MAX"))
        if passed is not None:
            os.set_inheritable(passed, True)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        try:
            containment.enter()
        except OSError as error:
            print(f"{containment.name}: {error}", file=sys.stderr, flush=True)
            os._exit(code)
        Shim(containment, sock, files, mark).serve()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Shim:
    def __init__(
        self, containment: Containment, sock: socket.socket, files: SlotFiles, mark: str
    ) -> None:
        self._containment = containment
        self._sock = sock
        self._files = files
        self._added = {"GRAMPUS_OUTPUT": files.output, MARK: mark}
        self._added_with_spec = {**self._added, "GRAMPUS_SPEC": files.spec}
        self._actions = (
            (os.POSIX_SPAWN_OPEN, 1, files.stdout, _APPEND, 0),
            (os.POSIX_SPAWN_OPEN, 2, files.stderr, _APPEND, 0),
        )
        self._clock = SystemClock()
        self._frames = FrameReader(FRAME_LIMIT)
        self._decode = msgspec.msgpack.Decoder(Launch | Halt | StandBy).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._attempt: Attempt | None = None
        #: The warden is gone.
        self._leaving = False

    def serve(self) -> None:
        """Attempt after attempt, until the warden is gone and nothing is left."""
        wake, alarm = socket.socketpair()
        wake.setblocking(False)
        alarm.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        self._sock.setblocking(True)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._sock, select.POLLIN)
        gc.freeze()
        while self._attempt is not None or not self._leaving:
            attempt = self._attempt
            wait = self._rest() if attempt is None else max(0, attempt.wake_at() - _ticks())
            for fd, _ in poll.poll(wait):
                if fd == wake.fileno():
                    wake.recv(4096)
                elif not self._hear():
                    poll.unregister(self._sock)
                    self._leaving = True
                    self._halt(0)
            if self._attempt is not None:
                self._tend(self._attempt)

    def _stand_by(self) -> None:
        """Nothing that would be worth it."""

    def _rest(self) -> int | None:
        """Nothing runs: for how many ms, unless something happens; None is for ever."""
        return None

    def _hear(self) -> bool:
        try:
            data = read(self._sock)
            payloads = self._frames.feed(data)
            orders = [self._decode(payload) for payload in payloads]
        except (OSError, ProtocolError, msgspec.DecodeError):
            return False
        for order in orders:
            match order:
                case Launch():
                    self._launch(order)
                case Halt(grace):
                    self._halt(grace)
                case StandBy():
                    self._stand_by()
        return bool(data)

    # Beginning

    def _launch(self, launch: Launch) -> None:
        try:
            self._files.prepare(launch.spec)
        except OSError as error:
            self._refuse(launch, f"cannot make its files: {error}", ours=True)
            return
        try:
            os.chdir(launch.cwd)
        except (OSError, ValueError) as error:
            why = f"cannot enter the folder {launch.cwd!r}: {_reason(error)}"
            self._refuse(launch, why, _is_lack(error))
            return
        try:
            pid = self._spawn(launch)
        except (OSError, ValueError) as error:
            program = launch.argv[0] if launch.argv else ""
            self._refuse(launch, f"cannot start {program!r}: {_reason(error)}", _is_lack(error))
            return
        self._attempt = Attempt(launch, pid, _ticks(), self._clock.ticks())

    def _spawn(self, launch: Launch) -> int:
        if not launch.argv or not launch.argv[0]:
            raise ValueError("the command is empty")
        return os.posix_spawn(
            locate(launch.argv[0], launch.env.get("PATH")),
            launch.argv,
            {**launch.env, **self._added_for(launch)},
            file_actions=self._actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_RESET,
        )

    def _added_for(self, launch: Launch) -> dict[str, str]:
        return self._added if launch.spec is None else self._added_with_spec

    def _refuse(self, launch: Launch, error: str, ours: bool) -> None:
        """`ours`: the order was fine, the machine was not."""
        os.chdir("/")
        cause: Literal["unable", "spawn"] = "unable" if ours else "spawn"
        now, ticks = self._clock.now(), self._clock.ticks()
        self._answer(Ended(launch.n, now, cause, None, error, 0, 0, False, ticks=ticks))

    # The end

    def _tend(self, attempt: Attempt) -> None:
        if self._reap(attempt):
            self._report(attempt)
            return
        now = _ticks()
        if attempt.kill_next is None:
            # Once it is being ended, everybody has the grace; else what outlives the main process
            # is killed at once.
            if attempt.kill_at is not None:
                if now >= attempt.kill_at:
                    self._begin_killing(attempt, now)
            elif attempt.exit is not None:
                self._begin_killing(attempt, now)
            elif attempt.timeout_at is not None and now >= attempt.timeout_at:
                self._terminate(attempt, "timeout", attempt.launch.grace)
        elif now >= attempt.kill_next:
            self._kill(attempt, now)
        if attempt.kill_next is not None and now >= attempt.stuck_at:
            attempt.stuck_at = now + STUCK_AFTER
            self._answer(Struggling(attempt.launch.n))
        if now >= attempt.watch_at:
            fast = self._files.watch()
            attempt.watch_at = now + (_WATCH_FAST if fast else _WATCH)

    def _halt(self, grace: int) -> None:
        attempt = self._attempt
        if attempt is None or self._reap(attempt):
            return
        if attempt.kill_next is not None:
            return
        if attempt.kill_at is not None:
            attempt.kill_at = min(attempt.kill_at, _ticks() + grace)
        elif attempt.exit is None:
            self._terminate(attempt, "end", grace)

    def _terminate(self, attempt: Attempt, cause: Literal["timeout", "end"], grace: int) -> None:
        now = _ticks()
        attempt.cause = cause
        attempt.kill_at = now + grace
        if grace <= 0:
            self._begin_killing(attempt, now)
            return
        self._containment.signal(signal.SIGTERM)
        # Who is stopped would not hear it.
        self._containment.signal(signal.SIGCONT)

    def _begin_killing(self, attempt: Attempt, now: int) -> None:
        attempt.stuck_at = now + STUCK_AFTER
        self._kill(attempt, now)

    def _kill(self, attempt: Attempt, now: int) -> None:
        """KILL to all. Who was born meanwhile gets the next one."""
        self._containment.signal(signal.SIGKILL)
        attempt.kill_next = now + attempt.again
        attempt.again = min(2 * attempt.again, _KILL_AGAIN_MOST)

    def _reap(self, attempt: Attempt) -> bool:
        """Takes leave of who ended. True when no child is left and the containment is empty."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return False
                if pid == attempt.pid:
                    attempt.exit = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return self._containment.empty()

    def _report(self, attempt: Attempt) -> None:
        self._attempt = None
        os.chdir("/")  # Its folder may be removed or unmounted now.
        kept = self._files.keep(attempt.launch.stem)
        n, cause, code = attempt.launch.n, attempt.cause, attempt.exit
        self._answer(ended(n, self._clock, attempt.began, cause, code, kept))

    def _answer(self, message: Ended | Struggling) -> None:
        if self._leaving:
            return
        try:
            self._sock.sendall(frame(self._encode(message)))
        except OSError:
            return  # The warden is gone: reading will say so.


def ended(
    n: int,
    clock: Clock,
    began: int | None,
    cause: Literal["exit", "timeout", "end", "lost"],
    code: int | None,
    kept: Kept,
) -> Ended:
    """The notice of an attempt that ran and is over; `began` in ms since boot."""
    ticks = clock.ticks()
    took = None if began is None else ticks - began
    return Ended(
        n, clock.now(), cause, code, kept.error, kept.stdout, kept.stderr, kept.output, kept.small,
        ticks, took,
    )  # fmt: skip


def locate(program: str, path: str | None) -> str:
    """The file of a program, found as a shell would; FileNotFoundError says where it looked."""
    if "/" in program:
        return program
    path = path or os.defpath
    for folder in path.split(":"):
        found = f"{folder or '.'}/{program}"
        if os.access(found, os.X_OK) and os.path.isfile(found):
            return found
    raise FileNotFoundError(2, f"no such program in PATH ({path})")


def _is_lack(error: OSError | ValueError) -> bool:
    return isinstance(error, OSError) and error.errno in _LACK


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _ticks() -> int:
    """Milliseconds, for spans. Suspend does not count: a laptop that slept has not computed."""
    return time.monotonic_ns() // 1_000_000
