"""Deliberate bugs in leases and fences, each a line or two of the product: some seed must catch
each of them."""

from __future__ import annotations

import pytest

from grampus.master.core.leases import Leases
from grampus.master.office import Office
from grampus.model.lease import KEEP
from grampus.runs import apply_sessions
from grampus.testing.crew import run_seed
from grampus.worker.fence import Ending, Fence
from grampus.worker.registration import Registration
from tests.simulation.teeth import Patch, Teeth

TEETH = Teeth(run_seed, seeds=150)
bug = TEETH.bug


# -- the holder ---------------------------------------------------------------------------------


@bug(2)
def fences_nobody(patch: Patch) -> None:
    patch.setattr(Fence, "look", lambda self, now: [])


@bug(8)
def lets_the_grace_decide_when_it_kills(patch: Patch) -> None:
    look = Fence.look
    patch.setattr(Fence, "look", lambda self, now: [Ending(n, 60_000) for n, _ in look(self, now)])


@bug(8)
def counts_from_a_while_after_the_answer(patch: Patch) -> None:
    confirmed = Registration.confirmed
    patch.setattr(
        Registration, "confirmed", lambda self, sent: confirmed(self, self._ticks() + 4_000)
    )


# -- the leader ---------------------------------------------------------------------------------


@bug(2)
def confirms_without_a_majority(patch: Patch) -> None:
    async def confirmed(self: Office) -> bool:
        return self.is_open

    patch.setattr(Office, "confirmed", confirmed)


@bug(15)
def counts_from_before_its_office(patch: Patch) -> None:
    seat = Leases.seat

    def early(
        self: Leases, session: int, worker: str, registered: int, silenced: bool, now: int
    ) -> None:
        seat(self, session, worker, registered, silenced, now - 60_000)

    patch.setattr(Leases, "seat", early)


@bug(3)
def loses_what_is_kept(patch: Patch) -> None:
    begin = Leases.begin

    def short(self: Leases, session: int, n: int, lease: int) -> None:
        begin(self, session, n, 10_000 if lease == KEEP else lease)

    patch.setattr(apply_sessions, "KEEP", -2)
    patch.setattr(Leases, "begin", short)


@bug(12)
def counts_the_half(patch: Patch) -> None:
    begin = Leases.begin
    patch.setattr(Leases, "begin", lambda self, s, n, lease: begin(self, s, n, lease // 2))


@pytest.mark.parametrize("name", TEETH.names())
def test_some_seed_catches(name: str, monkeypatch: Patch) -> None:
    TEETH.bite(name, monkeypatch)
