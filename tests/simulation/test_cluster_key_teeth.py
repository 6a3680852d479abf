"""Deliberate bugs in sessions, locks, watches, audits and upgrades: some seed must catch each."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus import versions
from grampus.cluster import apply_sessions, feed, locks
from grampus.cluster.client import ClusterClient
from grampus.cluster.commands import Origin
from grampus.cluster.core.keeper import SessionKeeper
from grampus.cluster.feed import Feed
from grampus.cluster.held_session import HeldSession
from grampus.cluster.queries import Queries
from grampus.cluster.values import KeysChanged
from grampus.consensus import steward
from grampus.ledger import Ledger
from grampus.testing.cluster import run_seed
from grampus.upkeep import TakeSum
from tests.simulation.teeth import Patch, Teeth

pytestmark = pytest.mark.timeout(300)
TEETH = Teeth(run_seed, seeds=60)
bug = TEETH.bug


# -- sessions -----------------------------------------------------------------------------------


@bug(1)
def ends_sessions_when_it_takes_office(patch: Patch) -> None:
    renew = SessionKeeper._renew

    def late(self: SessionKeeper, now: int) -> None:
        renew(self, now - 10_000)

    patch.setattr(SessionKeeper, "_renew", late)


@bug(5)
def carries_out_a_numbered_request_again(patch: Patch) -> None:
    once = apply_sessions.once

    def forgetful(space: Any, origin: Origin | None, carry_out: Any) -> Any:
        return once(space, origin and Origin(origin.session), carry_out)

    patch.setattr("grampus.cluster.apply.once", forgetful)


@bug(20)
def carries_out_what_a_session_that_is_over_has_asked(patch: Patch) -> None:
    once = apply_sessions.once

    def easy(space: Any, origin: Origin | None, carry_out: Any) -> Any:
        known = "SELECT id FROM cluster_session WHERE id = ?"
        if origin is not None and space.db.value(known, (origin.session,)) is None:
            return carry_out()
        return once(space, origin, carry_out)

    patch.setattr("grampus.cluster.apply.once", easy)


@bug(1)
def acknowledges_what_it_still_waits_for(patch: Patch) -> None:
    patch.setattr(HeldSession, "_acked", property(lambda self: self._next - 1))


# -- locks --------------------------------------------------------------------------------------


@bug(1)
def takes_a_lock_that_is_held(patch: Patch) -> None:
    patch.setattr(locks, "_ahead", lambda places, token: None)


@bug(1)
def waits_for_the_wrong_one(patch: Patch) -> None:
    """In the order of sessions, not of places."""

    def by_key(places: Any, token: int) -> Any:
        mine = next(place for place in places if place.created == token)
        return max((p for p in places if p.key < mine.key), key=lambda p: p.key, default=None)

    patch.setattr(locks, "_ahead", by_key)


@bug(2)
def leaves_the_keys_of_a_session_that_is_over(patch: Patch) -> None:
    delete = apply_sessions.end

    def careless(space: Any, command: Any) -> Any:
        space.db.execute("UPDATE kv SET session = 0 WHERE session = ?", (command.session,))
        return delete(space, command)

    table = versions.cluster_apply.APPLY[versions.FIRST]
    patch.setitem(table, next(kind for kind in table if table[kind] is delete), careless)


# -- watches ------------------------------------------------------------------------------------


@bug(1)
def tells_half_a_revision(patch: Patch) -> None:
    pick = feed._pick

    def half(keys: Any, fact: KeysChanged) -> KeysChanged | None:
        mine = pick(keys, fact)
        return mine and KeysChanged(mine.revision, mine.at, mine.changes[:1])

    patch.setattr(feed, "_pick", half)


@bug(1)
def forgets_that_it_forgot(patch: Patch) -> None:
    drop = Feed._drop

    def silently(self: Feed) -> None:
        floor = self._floor
        drop(self)
        self._floor = floor

    patch.setattr(Feed, "_drop", silently)


@bug(2)
def says_nothing_of_what_is_compacted(patch: Patch) -> None:
    patch.setattr(Queries, "check_known", lambda self, after: None)


@bug(3)
def watches_from_the_end_of_what_was_told(patch: Patch) -> None:
    """Elsewhere it goes on where that server is, not where it was."""
    changes = ClusterClient._changes

    async def hasty(self: ClusterClient, prefix: bytes, first: Any, view: Any, *rest: Any) -> Any:
        return await changes(self, prefix, first and self.seen.revision + 1, view, *rest)

    patch.setattr(ClusterClient, "_changes", hasty)


@bug(1)
def reads_what_is_older_than_what_was_seen(patch: Patch) -> None:
    async def at_once(self: Feed, revision: int, seconds: float) -> None:
        return

    patch.setattr(Feed, "reached", at_once)


# -- audits and upgrades ------------------------------------------------------------------------


@bug(1)
def takes_a_checksum_of_a_later_state(patch: Patch) -> None:
    """The reader begins when it reads, not where it was asked."""
    audit = Ledger._audit

    def late(self: Ledger, index: int, command: object) -> None:
        if not isinstance(command, TakeSum) or self.auditor is None:
            return audit(self, index, command)
        begun = self.auditor.begun

        def without(index: int, reader: Any) -> None:
            reader.execute("COMMIT")
            begun(index, reader)

        patch.setattr(self.auditor, "begun", without)
        audit(self, index, command)
        patch.setattr(self.auditor, "begun", begun)

    patch.setattr(Ledger, "_audit", late)


@bug(1)
def raises_before_everybody_knows(patch: Patch) -> None:
    patch.setattr(steward, "common_version", lambda members, known: max(known.values()))


@bug(1)
def takes_into_the_log_what_not_all_know(patch: Patch) -> None:
    patch.setattr(Ledger, "admit", lambda self, commands: None)


@bug(1)
def begins_with_the_first_version_at_each_start(patch: Patch) -> None:
    opened = Ledger.__init__

    def forgetful(self: Ledger, *args: Any, **named: Any) -> None:
        opened(self, *args, **named)
        self._handlers = versions.handlers(versions.FIRST)

    patch.setattr(Ledger, "__init__", forgetful)


@pytest.mark.parametrize("name", TEETH.names())
def test_some_seed_catches(name: str, monkeypatch: Patch) -> None:
    TEETH.bite(name, monkeypatch)
