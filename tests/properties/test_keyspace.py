"""The key space is a dict with numbers: whatever is asked, and watched from any revision."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from grampus.cluster import keyspace
from grampus.cluster.commands import (
    Begin,
    Command,
    Compact,
    Compare,
    Delete,
    DeleteOp,
    End,
    Origin,
    Put,
    PutOp,
    Txn,
    encode_command,
)
from grampus.cluster.queries import Queries
from grampus.cluster.values import KeysChanged, KeyValue
from grampus.errors import Compacted
from grampus.ledger import Ledger

KEYS = [b"/a", b"/a/1", b"/a/2", b"/b", b"/b/1", "/é".encode()]
key = st.sampled_from(KEYS)
value = st.binary(max_size=3)
op = st.one_of(
    st.builds(PutOp, key, value),
    st.builds(DeleteOp, key),
    st.builds(lambda start: DeleteOp(start, start + b"0"), key),
)
State = dict[bytes, KeyValue]


class Space(RuleBasedStateMachine):
    """`states` holds what a dict says there was at each revision."""

    @initialize()
    def found(self) -> None:
        self.ledger = Ledger(None)
        self.queries = Queries(self.ledger.database)
        self.now: State = {}
        self.states: dict[int, State] = {0: {}}
        self.log: list[list[bytes]] = []
        self.sessions: list[int] = []
        self.compacted = 0
        self.clock = 0

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()

    def ask(self, *commands: Command) -> list[Any]:
        data = [encode_command(command) for command in commands]
        self.log.append(data)
        return self.ledger.apply(len(self.log), 1, data)[0]

    def at(self) -> int:
        self.clock += 1
        return self.clock

    def _put(self, state: State, revision: int, key: bytes, value: bytes, session: int = 0) -> None:
        old = state.get(key)
        created, version = (revision, 0) if old is None else (old.created, old.version)
        state[key] = KeyValue(key, value, created, revision, version + 1, session)

    def _delete(self, state: State, start: bytes, end: bytes) -> int:
        gone = [k for k in state if (start <= k < end if end else k == start)]
        for each in gone:
            del state[each]
        return len(gone)

    def _changed(self, state: State, changed: bool) -> None:
        if changed:
            self.now = self.states[max(self.states) + 1] = state

    @rule(key=key, value=value)
    def put(self, key: bytes, value: bytes) -> None:
        state, revision = dict(self.now), max(self.states) + 1
        (written,) = self.ask(Put(self.at(), key, value))
        assert written.revision == revision
        self._put(state, revision, key, value)
        self._changed(state, True)

    @rule(key=key, value=value, which=st.integers(0, 3))
    def put_ephemeral(self, key: bytes, value: bytes, which: int) -> None:
        if not self.sessions:
            return
        session = self.sessions[which % len(self.sessions)]
        state, revision = dict(self.now), max(self.states) + 1
        self.ask(Put(self.at(), key, value, Origin(session), True))
        self._put(state, revision, key, value, session)
        self._changed(state, True)

    @rule(start=key, whole=st.booleans())
    def delete(self, start: bytes, whole: bool) -> None:
        end = start + b"0" if whole else b""
        state = dict(self.now)
        count = self._delete(state, start, end)
        (deleted,) = self.ask(Delete(self.at(), start, end))
        assert deleted.count == count
        self._changed(state, count > 0)

    @rule(ops=st.lists(op, max_size=5), key=key, version=st.integers(0, 2))
    def txn(self, ops: list[PutOp | DeleteOp], key: bytes, version: int) -> None:
        state, revision = dict(self.now), max(self.states) + 1
        old = state.get(key)
        holds = (0 if old is None else old.version) == version
        changed = False
        for each in ops if holds else ():
            if isinstance(each, PutOp):
                self._put(state, revision, each.key, each.value)
                changed = True
            else:
                changed = self._delete(state, each.start, each.end) > 0 or changed
        compare = Compare(key, "version", "=", version)
        (done,) = self.ask(Txn(self.at(), (compare,), tuple(ops), ()))
        assert done.succeeded is holds
        self._changed(state, changed)

    @rule()
    def begin(self) -> None:
        (session,) = self.ask(Begin(self.at(), f"i{len(self.log)}", "n", 10_000))
        self.sessions.append(session)
        self._changed(self.now, True)

    @rule(which=st.integers(0, 3))
    def end(self, which: int) -> None:
        if not self.sessions:
            return
        session = self.sessions.pop(which % len(self.sessions))
        self.ask(End(self.at(), session, "test"))
        state = {k: v for k, v in self.now.items() if v.session != session}
        self._changed(state, len(state) < len(self.now))
        self._changed(self.now, True)

    @rule(back=st.integers(0, 10))
    def compact(self, back: int) -> None:
        self.ask(Compact(self.at(), self.clock - back))
        compacted = self.queries.compacted()
        assert compacted >= self.compacted
        self.compacted = compacted

    @invariant()
    def the_keys_are_those_of_the_dict(self) -> None:
        if not hasattr(self, "ledger"):
            return
        page = self.queries.range(b"", b"\xff", 100)
        assert page.items == tuple(self.now[k] for k in sorted(self.now))
        assert page.revision == max(self.states) == self.ledger.revision
        part = self.queries.range(b"/a", b"/b", 2)
        inside = sorted(k for k in self.now if b"/a" <= k < b"/b")
        assert [item.key for item in part.items] == inside[:2]
        assert part.more is (len(inside) > 2)

    @invariant()
    def a_watch_from_any_revision_leads_to_now(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for after, then in self.states.items():
            if after < self.compacted:
                with pytest.raises(Compacted) as told:
                    self.queries.history(after, b"", b"\xff")
                assert told.value.first == self.compacted + 1
                continue
            piece = self.queries.history(after, b"", b"\xff")
            assert follow(then, piece.facts) == self.now

    @invariant()
    def the_counts_are_those_of_the_rows(self) -> None:
        if not hasattr(self, "ledger"):
            return
        db = self.ledger.database
        (counts,) = db.query("SELECT bytes, rows, row_bytes FROM keyspace")
        size = "sum(length(key) + ifnull(length(value), 0))"
        live = db.one(f"SELECT ifnull({size}, 0), count(*) FROM kv")
        past = db.one(f"SELECT count(*), ifnull({size}, 0) FROM kv_history")
        assert counts == (live[0] + live[1] * keyspace.KEY_COST, *past)

    @invariant()
    def a_replay_makes_the_same_ledger(self) -> None:
        if not hasattr(self, "ledger") or len(self.log) % 10:
            return
        again = Ledger(None)
        for index, data in enumerate(self.log, start=1):
            again.apply(index, 1, data)
        assert again.checksum() == self.ledger.checksum()
        again.close()


def follow(state: State, facts: tuple[KeysChanged, ...]) -> State:
    """What a client makes of the facts, with no other knowledge."""
    mine = dict(state)
    for fact in facts:
        for change in fact.changes:
            if change.value is None:
                mine.pop(change.key, None)
            else:
                mine[change.key] = KeyValue(
                    change.key, change.value, change.created, fact.revision, change.version,
                    change.session,
                )  # fmt: skip
    return mine


Space.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestSpace = Space.TestCase
