"""`grampus kv lock`: a command that runs while a lock is held, or the lock alone until Ctrl-C.

Rule: the command is over before anybody else can have the lock. When no sign of life was confirmed
for 60 % of the session's time it is asked to end (TERM), and at 80 % it is killed. What it has
started itself is its own affair: that is what the fencing token is for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from grampus.cli.output import note
from grampus.errors import LockLost, UsageError
from grampus.sdk.sessions import Lock

#: Shares of the session's time that are left when the command is asked to end, and when killed.
ASK, KILL = 0.4, 0.2
#: Seconds between two looks.
LOOK = 0.05


#: What tells a process that it is to end; SIGHUP when its terminal goes.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def hold(lock: Lock) -> None:
    """Until this process is told to stop. Raises LockLost."""
    told: list[int] = []
    with _hearing(told.append):
        while not told:
            lock.check()
            time.sleep(LOOK)


def run(lock: Lock, ttl: float, command: Sequence[str]) -> int:
    """The exit code of the command, or 128 and the number of the signal that ended it. `ttl` of
    the session, in seconds. Raises LockLost when the command had to be ended."""
    env = os.environ | {"GRAMPUS_LOCK": lock.name, "GRAMPUS_FENCING_TOKEN": str(lock.token)}
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int) -> None:
        if process is None:
            early.append(number)
        elif number != signal.SIGINT:  # Ctrl-C comes to the command by itself.
            process.send_signal(number)

    with _hearing(pass_on):
        try:
            process = subprocess.Popen(list(command), env=env)
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"{command[0]} cannot be started: {why}") from None
        for number in early:
            process.send_signal(number)
        ended = _ended_by_us(process, lock, ttl)
    if ended:
        raise LockLost(f"lock {lock.name} could not be held any longer: its command was ended")
    if not lock.held:
        # This process stood still, with the command or beside it.
        raise LockLost(f"lock {lock.name} was lost before its command was over")
    code = process.wait()
    return 128 - code if code < 0 else code


def _ended_by_us(process: subprocess.Popen[bytes], lock: Lock, ttl: float) -> bool:
    """Waits for the end of the process, and ends it in time; whether it had to."""
    asked = False
    while process.poll() is None:
        left = lock.session.left
        if left < KILL * ttl:
            process.kill()
            process.wait()
            return True
        if left < ASK * ttl and not asked:
            asked = True
            note(f"lock {lock.name}: no server has confirmed it, so its command is told to end")
            process.terminate()
        time.sleep(LOOK)
    return asked


@contextmanager
def _hearing(told: Callable[[int], None]) -> Iterator[None]:
    """Meanwhile SIGINT, SIGTERM and SIGHUP are told, and end nothing by themselves."""

    def hear(number: int, frame: FrameType | None) -> None:
        told(number)

    before = {number: signal.signal(number, hear) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
