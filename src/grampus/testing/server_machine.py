"""The machine of a simulated server: what is left of it when its process is gone.

Rule: disk and ledger lose what a power cut takes; whatever was durable stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from grampus.cluster.feed import RECENT
from grampus.cluster.limits import HISTORY_ROWS
from grampus.cluster.retention import EVERY as RETAIN
from grampus.consensus.generation import Generation
from grampus.consensus.introduction import introduce
from grampus.consensus.log import DurableLog
from grampus.consensus.members import Members
from grampus.consensus.turns import Kept
from grampus.consensus.writer import Limits
from grampus.errors import GrampusError
from grampus.founding import Standing, standing
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.server.audit import EVERY
from grampus.testing.cluster_watch import ClusterWatch
from grampus.testing.disk import SimDisk
from grampus.testing.world import World
from grampus.versions import FIRST

#: Ledgers are compared as a whole at every so many entries; what they make of it at every one.
LOOK = 25


class Settings(Struct, frozen=True):
    """Small bounds make snapshots, segments, checkpoints and gaps in the history come often."""

    limits: Limits = Limits(checkpoint_entries=50, checkpoint_idle=0.5)
    kept: Kept = Kept()
    #: Whether the leader promotes and replaces by itself, as a steward in office does.
    steward: bool = False
    #: Rows of the history of keys, and changes that a feed has in memory.
    history: int = HISTORY_ROWS
    recent: int = RECENT
    #: Seconds between two comparisons of the ledgers, and two looks at what is too old.
    audit: float = EVERY
    retain: float = RETAIN
    #: Whether the servers get the next version, one after the other.
    upgrade: bool = False


class SimLedger(Ledger):
    """Keeps, at every checkpoint, what a power cut would leave of it; tells what it applies."""

    def __init__(self, machine: SimMachine, path: Path, newest: int) -> None:
        try:
            super().__init__(path, newest=newest)
        except GrampusError:
            self._db.close()
            raise
        self._machine = machine
        self._file = path
        self.image = path.with_suffix(".image")
        if not self.image.exists():
            super().checkpoint()
            shutil.copyfile(path, self.image)

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        self._machine.disk.need_room()
        before = self.apply_version
        answers, facts = super().apply(index, term, commands)
        if self.apply_version != before:
            self._machine.watch.raised(Members.decode(self.members))
        self._machine.watch.applied(self._machine.member.name, index, term, tuple(commands))
        self._machine.watch.keys.applied(index, facts)
        if not self._machine.damaged:
            self._machine.watch.outcome(self._machine.member.name, index, (answers, facts))
        self._look()
        return answers, facts

    def apply_members(self, index: int, term: int, members: bytes) -> None:
        self._machine.disk.need_room()
        super().apply_members(index, term, members)
        self._machine.watch.applied(self._machine.member.name, index, term, (members,))

    def _look(self) -> None:
        if self.applied_index % LOOK == 0 and not self._machine.damaged:
            name = self._machine.member.name
            self._machine.watch.content(name, self.applied_index, self.checksum())

    def checkpoint(self) -> int | None:
        self._machine.disk.need_room()
        index = super().checkpoint()
        if index is not None:
            shutil.copyfile(self._file, self.image)
        return index


class SimMachine:
    """What is left of a server when its process is gone."""

    def __init__(
        self, world: World, watch: ClusterWatch, member: Member, folder: Path, settings: Settings
    ) -> None:
        self.world = world
        self.watch = watch
        self.member = member
        self.folder = folder
        self.settings = settings
        self.disk = SimDisk(world.rng)
        #: The newest apply version of the program that is installed.
        self.knows = FIRST
        #: Somebody has put an older program in the place of that.
        self.fell_back = False
        #: Its ledger was damaged, or its folder put back to an earlier time, behind its back.
        self.damaged = self.put_back = False
        #: Processes that it has had.
        self.starts = 0
        #: By how much its wall clock is wrong, in ms.
        self.skew = 0
        for part in ("ledger", "log"):
            (folder / part).mkdir(parents=True)
        DurableLog.open(folder / "log").close()

    @property
    def new(self) -> bool:
        """It has no ledger of the cluster yet, and room to be told of it."""
        return Generation.current(self.folder).number == 0 and self.disk.room is None

    def introduce(self, members: Members) -> None:
        introduce(self.folder, members, self.disk)

    def standing(self) -> Standing | None:
        return standing(self.folder)

    def crash(self, power: bool) -> None:
        if not power:
            self.disk.forget()
            return
        undone = self.disk.cut_power()
        self.world.say(f"{self.member.name}: {undone} changes of its disk are lost")
        for image in sorted(self.folder.rglob("*.image")):
            if self.world.rng.random() < 0.7:
                path = image.with_suffix(".db")
                shutil.copyfile(image, path)
                for tail in ("-wal", "-shm"):
                    path.with_name(path.name + tail).unlink(missing_ok=True)
