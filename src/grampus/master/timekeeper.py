"""A clock that knows whether it can be believed: the time of this office.

Rule: whoever does by wall time what cannot be taken back (fires ticks, ends runs by their timeout,
deletes) asks it first. It says aloud when it begins to doubt, what to do about it, and when it
believes again. What a doubt is, `core.steadiness` decides.

The last time that was believed is kept in a file, with the time since boot. Until the machine boots
anew that shows to the second what became of the clock while no node ran, and entries of the ledger
that a doubted clock has made prove nothing. Without the file the newest entry has to do.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from grampus.clock import Clock
from grampus.master.core.steadiness import HOLD, Steadiness
from grampus.runs.story import span

log = logging.getLogger("grampus.master")

_HOUR, _DAY = 3_600_000, 86_400_000


#: How often the file is written, in ms.
SAVE = 10_000


class Believed(Struct, frozen=True):
    """What the file says."""

    boot: str
    ticks: int
    now: int


class Timekeeper:
    """Is a `Clock` itself. `file` is where the believed time is kept, `boot` names this boot."""

    def __init__(self, clock: Clock, file: Path | None = None, boot: str = "") -> None:
        self._clock = clock
        self._file = file
        self._boot = boot
        self._told = ""
        self._saved_at: int | None = None
        self._unsaved = False
        #: The newest time of an earlier boot that was believed.
        self._before: int | None = None
        #: Every moment since it was last believed is known.
        self._proven = False
        known = self._read()
        if known is not None and known.boot == boot and known.ticks <= clock.ticks():
            self._proven = True
            self._steady = Steadiness(known.now, known.ticks)
        else:
            self._before = None if known is None else known.now
            self._steady = Steadiness(clock.now(), clock.ticks())

    def now(self) -> int:
        return self._clock.now()

    def ticks(self) -> int:
        return self._clock.ticks()

    def synchronised(self) -> bool:
        return self._clock.synchronised()

    def begin(self, newest: int | None) -> None:
        """An office begins: `newest` is the time of the newest entry that the ledger has."""
        self._look()
        if not self._proven:
            self._steady.compare(newest if self._before is None else self._before)
        self._proven = True
        self._look()

    def believes(self, patience: int = HOLD) -> bool:
        """Whether somebody believes the clock now who doubts for so many ms."""
        self._look()
        return self._steady.believes(patience)

    def trust(self) -> None:
        """Somebody says that the clock is right."""
        self._steady.trust()
        self._look()

    @property
    def doubt(self) -> str:
        """What is wrong with the clock, for people; "" when schedules fire by it."""
        self._look()
        left = self._steady.left(HOLD)
        return f"{self._why()}; they wait for {span(left)} more" if left else ""

    def _why(self) -> str:
        off, against = self._steady.off
        where = "ahead of" if off > 0 else "behind"
        about = span(abs(off) // _HOUR * _HOUR if abs(off) >= _DAY else abs(off))
        if against == "ledger":
            return f"the clock is {about} {where} the newest entry of the ledger"
        return f"the clock is suddenly {about} ahead"

    def _look(self) -> None:
        steady = self._steady
        # The kernel is asked only when it matters.
        synchronised = steady.doubted and self._clock.synchronised()
        steady.look(self._clock.now(), self._clock.ticks(), synchronised)
        if steady.jump < 0:
            back = span(-steady.jump)
            log.warning("the clock went back by %s: what was fired is not fired again", back)
        if steady.doubted and not steady.believes(HOLD):
            why = self._why()
            if why != self._told:
                log.error(
                    "ALARM: %s: schedules and timeouts of runs are held back for %s, and nothing is"
                    " deleted for a day. Set the clock; or, if it is right: grampus schedule"
                    " trust-clock", why, span(HOLD),
                )  # fmt: skip
            self._told = why
        elif self._told:
            log.warning("the clock is believed again: schedules fire")
            self._told = ""
        if self._proven and not steady.doubted:
            self._save()

    def _read(self) -> Believed | None:
        """It is not synced: after a power cut it may be anything."""
        if self._file is None:
            return None
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Believed)
        except (OSError, msgspec.DecodeError):
            return None

    def _save(self) -> None:
        now, ticks = self._clock.now(), self._clock.ticks()
        if self._file is None or (self._saved_at is not None and ticks < self._saved_at + SAVE):
            return
        self._saved_at = ticks
        aside = self._file.with_name(self._file.name + ".new")
        try:
            aside.write_bytes(msgspec.json.encode(Believed(self._boot, ticks, now)))
            os.replace(aside, self._file)
            self._unsaved = False
        except OSError as error:
            if not self._unsaved:
                log.warning("the time cannot be kept in %s: %s", self._file, error)
            self._unsaved = True
