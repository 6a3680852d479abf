"""Deliberate bugs in a cluster, each a line or two of the product: some seed must catch each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.cluster.commands import Written
from grampus.consensus import snapshots
from grampus.consensus.asking import Asking
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.members import MemberChange, Members
from grampus.consensus.peers import Peers
from grampus.consensus.proposals import Proposals
from grampus.consensus.record import HardState
from grampus.consensus.replica import RaftReplica
from grampus.consensus.turns import Turns
from grampus.errors import NotLeader, OutcomeUnknown
from grampus.ledger import Ledger
from grampus.testing.cluster import run_seed
from grampus.testing.disk import SimDisk
from grampus.testing.server_machine import SimLedger
from tests.simulation.teeth import Patch, Teeth

pytestmark = pytest.mark.timeout(300)
TEETH = Teeth(run_seed, seeds=60)
bug = TEETH.bug


# -- what must be durable -----------------------------------------------------------------------


@bug(3)
def forgets_a_sync(patch: Patch) -> None:
    made = SimDisk.__init__

    def lying(self: SimDisk, *args: Any) -> None:
        made(self, *args)
        self.lies = True

    patch.setattr(SimDisk, "__init__", lying)


@bug(3)
def forgets_the_vote(patch: Patch) -> None:
    append = DurableLog.append

    def forgetful(self: DurableLog, entries: Any, hard: HardState | None = None) -> None:
        append(self, entries, hard and HardState(hard.term, 0, hard.commit))

    patch.setattr(DurableLog, "append", forgetful)


@bug(27)
def sends_before_the_write(patch: Patch) -> None:
    turn = Turns._turn

    async def hasty(self: Turns, ready: Any) -> None:
        sync, hard, entries, snapshot, messages, persisted, *rest = ready
        await turn(self, (sync, hard, entries, snapshot, [*messages, *persisted], [], *rest))

    patch.setattr(Turns, "_turn", hasty)


@bug(1)
def keeps_the_members_in_memory_only(patch: Patch) -> None:
    def careless(self: Ledger, index: int, term: int, members: bytes) -> None:
        with self._db.transaction():
            self._set("applied_index", index)
            self._set("applied_term", term)
        self._applied, self._members = index, members

    patch.setattr(Ledger, "apply_members", careless)


@bug(10)
def lets_go_of_what_is_not_durable_in_the_ledger(patch: Patch) -> None:
    patch.setattr(SimLedger, "checkpoint", lambda self: self.applied_index)


@bug(1)
def puts_a_snapshot_beside_the_old_wal(patch: Patch) -> None:
    def beside(
        generation: Generation, ledger: Path, base: tuple[int, int], hard: HardState, disk: Disk
    ) -> None:
        present = Generation(generation.folder, generation.number - 1)
        os.replace(ledger, present.ledger / snapshots.LEDGER)
        for file in present.log.glob("*.log"):
            file.unlink()
        DurableLog.begin(present.log, base, hard, disk=disk)

    patch.setattr(snapshots, "lay_down", beside)


@bug(1)
def puts_a_snapshot_before_the_old_log(patch: Patch) -> None:
    def mixed(
        generation: Generation, ledger: Path, base: tuple[int, int], hard: HardState, disk: Disk
    ) -> None:
        before = Generation(generation.folder, generation.number - 1).log
        generation.prepare()
        disk.rename(ledger, generation.ledger / snapshots.LEDGER)
        for file in before.glob("*.log"):
            shutil.copy(file, generation.log)
        generation.make_current(disk)

    patch.setattr(snapshots, "lay_down", mixed)


# -- what is answered ---------------------------------------------------------------------------


@bug(1)
def answers_at_append(patch: Patch) -> None:
    proposed = Proposals.proposed

    def early(self: Proposals, index: int, term: int, entries: Any) -> None:
        proposed(self, index, term, entries)
        for pieces in entries:
            for piece in pieces:
                if not piece.proposal.future.done():
                    piece.proposal.future.set_result([Written(index)] * piece.proposal.count)

    patch.setattr(Proposals, "proposed", early)


@bug(52)
def knows_entries_by_index_alone(patch: Patch) -> None:
    def easy(self: Proposals, index: int, term: int, results: list[object]) -> None:
        for _, pieces in self._entries.pop(index, ()):
            self._happened(pieces, results)

    patch.setattr(Proposals, "applied", easy)


@bug(1)
def takes_the_unknown_for_nothing(patch: Patch) -> None:
    propose = Peers.propose

    async def hopeful(self: Peers, *args: Any) -> list[object]:
        try:
            return await propose(self, *args)
        except OutcomeUnknown as error:
            raise NotLeader(str(error)) from error

    patch.setattr(Peers, "propose", hopeful)


@bug(3)
def reads_without_a_barrier(patch: Patch) -> None:
    async def nothing(self: RaftReplica) -> None:
        return

    patch.setattr(RaftReplica, "read_barrier", nothing)


@bug(105)
def believes_that_it_leads(patch: Patch) -> None:
    async def certain(self: Asking) -> int:
        if not self._here.leader:
            raise NotLeader("it does not")
        return self._turns.hard.commit

    patch.setattr(Asking, "confirm", certain)


@bug(2)
def reads_before_it_has_applied(patch: Patch) -> None:
    async def at_once(self: Any, index: int) -> None:
        return

    patch.setattr("grampus.consensus.barriers.Barriers.until", at_once)


# -- what must be the same everywhere -----------------------------------------------------------


@bug(9)
def stores_ids_as_raft_lists_them(patch: Patch) -> None:
    after = Members.after

    def as_listed(self: Members, conf: Any, change: MemberChange) -> Members:
        sound = after(self, conf, change)
        return Members(conf, sound.known, sound.lost, sound.removed)

    patch.setattr(Members, "after", as_listed)


@pytest.mark.parametrize("name", TEETH.names())
def test_some_seed_catches(name: str, monkeypatch: Patch) -> None:
    TEETH.bite(name, monkeypatch)
