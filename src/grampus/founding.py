"""The beginning of a cluster: a data folder becomes the folder of its first and only voter.

Founding, recovering without a majority and restoring a snapshot are one act: a ledger is copied,
says from then on who its members are, and is laid down as the next generation with an empty log
behind it. So a crash in the middle leaves the folder as it was, and a newcomer can never replay a
log that does not name the members: what lies before is only in snapshots.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from grampus.cluster.core.histories import SKIP
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.members import Members
from grampus.consensus.record import NORMAL, HardState
from grampus.consensus.snapshots import LEDGER, lay_down
from grampus.consensus.solo import SoloLog
from grampus.consensus.trail import pardon
from grampus.errors import Refused
from grampus.ledger import Ledger
from grampus.model.member import Member

_DECODER = msgspec.msgpack.Decoder(list[bytes])


class Standing(Struct, frozen=True):
    """What a data folder is, as far as clusters go."""

    generation: Generation
    members: Members
    history: str


class Survivor(Struct, frozen=True):
    """How far the folder of a stopped server goes: what `recover` would keep."""

    members: Members
    #: Its last entry, and the term of that: of two survivors the one with the later term has more,
    #: in the same term the one with the later entry.
    last: int
    term: int
    #: Up to there entries are known to be committed. What is behind was maybe never acknowledged.
    committed: int

    @property
    def uncertain(self) -> int:
        return self.last - self.committed


def raft_id(node: str) -> int:
    """The Raft id of a folder, from its node id: as random, and as lasting."""
    number = int.from_bytes(base64.b32decode(node.upper())[:8], "big") >> 1
    return number or 1


def standing(folder: Path) -> Standing | None:
    """None when the folder's ledger belongs to no cluster, or is not there yet."""
    generation = Generation.current(folder)
    path = generation.ledger / LEDGER
    if not path.exists():
        return None
    ledger = Ledger(path)
    try:
        members = Members.decode(ledger.members)
        return Standing(generation, members, ledger.history) if members.known else None
    finally:
        ledger.close()


async def found(folder: Path, me: Member, history: str, *, disk: Disk | None = None) -> Standing:
    """Makes the folder that of a cluster's first server, with all that its ledger has.

    Refused when it belongs to a cluster already. The caller holds the folder."""
    if standing(folder) is not None:
        raise Refused(f"{folder} belongs to a cluster already: start it without --init")
    generation = Generation.current(folder)
    path = generation.ledger / LEDGER
    if path.exists():
        await _settle(generation, path)
    return _begin(generation, path if path.exists() else None, me, history, 0, disk)


async def _settle(generation: Generation, path: Path) -> None:
    """Applies the end of the log to the ledger."""
    ledger = Ledger(path)
    try:
        replica = await SoloLog.open(generation.log, ledger)
        await replica.close()
    finally:
        ledger.close()


def survey(folder: Path) -> Survivor:
    """Changes nothing but a torn end of the log. Raises Refused for the folder of no server. The
    caller holds the folder."""
    there = standing(folder)
    if there is None:
        raise Refused(f"{folder} belongs to no cluster: there is nothing to recover")
    ledger = Ledger(there.generation.ledger / LEDGER)
    try:
        applied = ledger.applied_index
    finally:
        ledger.close()
    log = DurableLog.open(there.generation.log)
    try:
        log.check_reaches(applied)
        committed = max(applied, min(log.hard.commit, log.last))
        return Survivor(there.members, log.last, log.last_term, committed)
    finally:
        log.close()


def recover(folder: Path, me: Member, history: str, *, disk: Disk | None = None) -> Standing:
    """The only member of a history of its own, from all that this server has.

    That is its ledger and everything in its log: what the lost majority has acknowledged and this
    server has heard of is among it; so may be what was never acknowledged, as if this server had
    been elected. Whoever comes back of the lost majority is refused, by its history. The caller
    holds the folder."""
    before = standing(folder)
    if before is None:
        raise Refused(f"{folder} belongs to no cluster: there is nothing to recover")
    path = before.generation.ledger / LEDGER
    made = _begin(before.generation, path, me, history, SKIP, disk, rest=before.generation)
    pardon(folder, disk or Disk())
    return made


def restore(
    folder: Path, snapshot: Path, me: Member, history: str, *, disk: Disk | None = None
) -> Standing:
    """As `recover`, from the file of a snapshot. The folder has no ledger that would be lost."""
    refuse_ledger(folder)
    return _begin(Generation.current(folder), snapshot, me, history, SKIP, disk)


def refuse_ledger(folder: Path) -> None:
    """Raises Refused when a restored one would take its place."""
    if (Generation.current(folder).ledger / LEDGER).exists():
        raise Refused(f"{folder} has a ledger: restore into an empty folder")


def _begin(
    generation: Generation,
    source: Path | None,
    me: Member,
    history: str,
    skip: int,
    disk: Disk | None,
    rest: Generation | None = None,
) -> Standing:
    aside = generation.folder / "founding"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    copy = aside / LEDGER
    term = _term(generation)
    if source is not None:
        before = Ledger(source)
        try:
            before.snapshot(copy)
        finally:
            before.close()
    ledger = Ledger(copy)
    try:
        if rest is not None:
            _catch_up(ledger, rest)
        if ledger.applied_index == 0:
            # Raft counts from the entry behind the base, and the base must be one.
            ledger.apply(1, 1, [])
        members = _alone(me, Members.decode(ledger.members))
        index, base_term = ledger.found(members.encode(), history, skip)
        ledger.checkpoint()
    finally:
        ledger.close()
    hard = HardState(max(term, base_term), 0, index)
    lay_down(generation.following, copy, (index, base_term), hard, disk or Disk())
    shutil.rmtree(aside, ignore_errors=True)
    return Standing(generation.following, members, history)


def _alone(me: Member, before: Members) -> Members:
    """Who was removed before stays outside, for its certificate is still one of the cluster's."""
    return Members(
        conf=([me.id], [], [], [], False),
        known=(me,),
        removed=tuple(id for id in before.removed if id != me.id),
        removed_keys=tuple(key for key in before.removed_keys if key != me.key),
    )


def _catch_up(ledger: Ledger, generation: Generation) -> None:
    """Applies what the generation's log has beyond the ledger. Who the members are does not
    matter any more."""
    log = DurableLog.open(generation.log)
    try:
        log.check_reaches(ledger.applied_index)
        for entry in log.entries(ledger.applied_index + 1):
            if entry.change == NORMAL:
                commands = _DECODER.decode(entry.payload) if entry.payload else []
                ledger.apply(entry.index, entry.term, commands)
            else:
                ledger.apply_members(entry.index, entry.term, ledger.members)
    finally:
        log.close()


def _term(generation: Generation) -> int:
    """Of the log that is left behind: terms grow."""
    if not generation.log.is_dir() or not any(generation.log.glob("*.log")):
        return 0
    log = DurableLog.open(generation.log)
    try:
        return log.hard.term
    finally:
        log.close()
