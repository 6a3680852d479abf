"""What the ledger says to commands of the metadata center, one rule each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from grampus.cluster import keyspace, limits
from grampus.cluster.commands import (
    Begin,
    Command,
    Compact,
    Compare,
    Delete,
    Deleted,
    DeleteOp,
    End,
    GetDone,
    GetOp,
    Origin,
    Put,
    PutOp,
    Txn,
    TxnDone,
    Written,
    encode_command,
)
from grampus.cluster.limits import ANSWER_BYTES, ROWS, WINDOW, end_of
from grampus.cluster.queries import Queries
from grampus.cluster.refusal import Refusal
from grampus.cluster.values import KeyChange, KeysChanged, KeyValue, SessionBegan, SessionOver
from grampus.errors import Compacted
from grampus.ledger import Ledger


class Book:
    """A ledger, and what it told."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.facts: list[Any] = []
        self.queries = Queries(self.ledger.database)

    def ask(self, *commands: Command) -> list[Any]:
        """As one batch."""
        index = self.ledger.applied_index + 1
        answers, facts = self.ledger.apply(index, 1, [encode_command(c) for c in commands])
        self.facts += facts
        return answers

    def put(self, key: str, value: str = "v", origin: Origin | None = None, **more: Any) -> Any:
        return self.ask(Put(1, key.encode(), value.encode(), origin, **more))[0]

    def begin(self, instance: str = "i") -> int:
        (session,) = self.ask(Begin(1, instance, "me", 10_000))
        assert isinstance(session, int)
        return session

    def keys(self) -> list[str]:
        return [item.key.decode() for item in self.queries.range(b"", b"\xff", 1000).items]

    def get(self, key: str) -> KeyValue | None:
        return self.queries.get(key.encode())[1]


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_put_makes_a_key_and_later_puts_raise_its_version(book: Book) -> None:
    assert book.put("/a") == Written(1)
    book.put("/b")
    assert book.put("/a", "w") == Written(3)
    assert book.get("/a") == KeyValue(b"/a", b"w", created=1, modified=3, version=2)
    assert book.facts[2] == KeysChanged(3, 1, (KeyChange(b"/a", b"w", 1, 2, 0),))


def test_a_key_made_anew_begins_anew(book: Book) -> None:
    book.put("/a")
    assert book.ask(Delete(1, b"/a")) == [Deleted(2, 1)]
    book.put("/a")
    assert book.get("/a") == KeyValue(b"/a", b"v", created=3, modified=3, version=1)


def test_deleting_nothing_is_no_revision(book: Book) -> None:
    book.put("/a")
    assert book.ask(Delete(1, b"/b")) == [Deleted(1, 0)]
    assert book.ledger.revision == 1
    assert len(book.facts) == 1


def test_a_range_is_deleted_in_one_revision_and_a_large_one_is_refused(book: Book) -> None:
    for name in ("/a/1", "/a/2", "/b"):
        book.put(name)
    assert book.ask(Delete(1, b"/a/", end_of(b"/a/"))) == [Deleted(4, 2)]
    assert book.keys() == ["/b"]
    book.ask(*[Put(1, b"/c/%04d" % n, b"") for n in range(ROWS + 1)])
    (refusal,) = book.ask(Delete(1, b"/c/", end_of(b"/c/")))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "too-many"
    assert len(book.keys()) == ROWS + 2


def test_a_transaction_is_one_revision_and_takes_one_branch(book: Book) -> None:
    book.put("/a")
    then = (PutOp(b"/x", b"1"), DeleteOp(b"/a"), PutOp(b"/y", b"2"), GetOp(b"/x"))
    orelse = (GetOp(b"/", b"0"),)
    unchanged = Compare(b"/a", "modified", "=", 1)
    (done,) = book.ask(Txn(1, (unchanged,), then, orelse))
    got = KeyValue(b"/x", b"1", 2, 2, 1)
    assert done == TxnDone(2, True, (Written(0), Deleted(0, 1), Written(0), GetDone((got,), False)))
    assert [c.key for c in book.facts[-1].changes] == [b"/x", b"/a", b"/y"]
    (done,) = book.ask(Txn(1, (unchanged,), then, orelse))
    assert not done.succeeded
    assert [item.key for item in done.results[0].items] == [b"/x", b"/y"]
    assert done.revision == book.ledger.revision == 2


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare(b"/a", "value", "=", b"two"), True),
        (Compare(b"/a", "value", "<", b"twp"), True),
        (Compare(b"/a", "version", ">", 1), True),
        (Compare(b"/a", "created", "!=", 1), False),
        (Compare(b"/a", "modified", "<", 2), False),
        (Compare(b"/none", "version", "=", 0), True),
        (Compare(b"/none", "session", "=", 0), True),
        (Compare(b"/none", "value", "!=", b"x"), False),
    ],
)
def test_comparisons(book: Book, compare: Compare, holds: bool) -> None:
    book.put("/a", "one")
    book.put("/a", "two")
    assert book.ask(Txn(1, (compare,), (), ()))[0].succeeded is holds


def test_a_transaction_reads_a_bounded_part_and_says_so(book: Book) -> None:
    size = limits.READ_LIMIT // 2
    book.ask(*[Put(1, b"/%d" % n, b"x" * size) for n in range(3)])
    (done,) = book.ask(Txn(1, (), (GetOp(b"/", b"0"), GetOp(b"/2")), ()))
    assert [len(r.items) for r in done.results] == [1, 0]
    assert all(r.more for r in done.results)


def test_a_refused_transaction_changes_nothing(book: Book) -> None:
    book.ask(*[Put(1, b"/c/%04d" % n, b"") for n in range(ROWS)])
    before = book.ledger.revision
    everything = DeleteOp(b"/c/", b"/c0")
    (refusal,) = book.ask(Txn(1, (), (PutOp(b"/x", b""), everything, DeleteOp(b"/y")), ()))
    assert isinstance(refusal, Refusal)
    assert book.ledger.revision == before
    assert book.get("/x") is None


def test_the_key_space_has_an_end(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyspace, "SPACE_LIMIT", 1000)
    assert book.put("/a", "x" * 400) == Written(1)
    assert book.put("/b", "x" * 500).code == "no-space"
    book.ask(Delete(1, b"/a"))
    assert book.put("/b", "x" * 500) == Written(3)
    space = book.ledger.database.value("SELECT bytes FROM keyspace")
    assert space == 2 + 500 + limits.KEY_COST


# sessions


def test_a_session_takes_its_keys_with_it_in_one_revision(book: Book) -> None:
    session = book.begin()
    for name in ("/a", "/b", "/c"):
        book.put(name, origin=Origin(session), ephemeral=name != "/b")
    assert book.get("/a") == KeyValue(b"/a", b"v", 2, 2, 1, session)
    assert book.ask(End(1, session, "silent")) == ["ended"]
    gone, over = book.facts[-2:]
    assert gone == KeysChanged(5, 1, (KeyChange(b"/a", None), KeyChange(b"/c", None)))
    assert over == SessionOver(6, 1, session, "silent")
    assert book.keys() == ["/b"]
    assert book.ask(End(1, session, "silent"))[0].code == "no-session"


def test_the_same_instance_gets_its_session_again(book: Book) -> None:
    session = book.begin("one")
    assert book.facts == [SessionBegan(session, 1, "me", 10_000)]
    assert book.begin("one") == session
    assert book.begin("two") != session


def test_a_key_belongs_to_whom_put_it_last(book: Book) -> None:
    one, two = book.begin("one"), book.begin("two")
    book.put("/a", origin=Origin(one), ephemeral=True)
    book.put("/a", origin=Origin(two), ephemeral=True)
    book.put("/b", origin=Origin(one), ephemeral=True)
    book.put("/b", origin=Origin(one))
    book.ask(End(1, one, ""))
    assert book.keys() == ["/a", "/b"]
    assert book.ledger.database.query("SELECT id, keys FROM cluster_session") == [(two, 1)]


def test_a_session_owns_a_bounded_number_of_keys(book: Book) -> None:
    origin = Origin(book.begin())
    book.ask(*[Put(1, b"/%04d" % n, b"", origin, True) for n in range(ROWS)])
    assert book.put("/more", origin=origin, ephemeral=True).code == "too-many"
    (refusal,) = book.ask(Txn(1, (), (PutOp(b"/more", b"", True),), (), origin))
    assert refusal.code == "too-many"


def test_a_request_is_carried_out_once(book: Book) -> None:
    session = book.begin()
    first = book.put("/k", "1", Origin(session, 1))
    book.put("/k", "2")
    assert book.put("/k", "1", Origin(session, 1)) == first
    assert book.get("/k") == KeyValue(b"/k", b"2", 2, 3, 2)
    txn = Txn(1, (), (GetOp(b"/k"), PutOp(b"/x", b"")), (), Origin(session, 2))
    (done,) = book.ask(txn)
    book.put("/k", "3")
    assert book.ask(txn) == [done]


def test_acknowledged_answers_are_forgotten_and_never_asked_for_again(book: Book) -> None:
    session = book.begin()
    for seq in range(1, 5):
        book.put("/k", str(seq), Origin(session, seq, seq - 2 if seq > 2 else 0))
    rows = book.ledger.database.query("SELECT seq FROM cluster_result ORDER BY seq")
    assert rows == [(3,), (4,)]
    assert book.put("/k", "late", Origin(session, 1)).code == "forgotten"
    assert book.put("/k", "late", Origin(session, 3, 3)).code == "forgotten"
    assert book.put("/k", "far", Origin(session, 4 + WINDOW, 3)).code == "too-many"
    assert book.get("/k").value == b"4"  # type: ignore[union-attr]


def test_a_session_whose_answers_are_large_must_acknowledge_some_first(book: Book) -> None:
    session = book.begin()
    for n in range(2):
        book.put(f"/k{n}", "v" * 60_000)
    read = (GetOp(b"/k0"), GetOp(b"/k1"))
    seq = 0
    while True:
        seq += 1
        (answer,) = book.ask(Txn(1, (), read, (), Origin(session, seq)))
        if isinstance(answer, Refusal):
            break
    assert (answer.code, "wait for session" in answer.reason) == ("too-many", True)
    rows = book.ledger.database.query("SELECT length(answer) FROM cluster_result")
    assert ANSWER_BYTES <= sum(size for (size,) in rows) < ANSWER_BYTES + 130_000
    # What it has asked it may ask again; nothing of it happened that was refused.
    assert isinstance(book.ask(Txn(1, (), read, (), Origin(session, 1)))[0], TxnDone)
    assert book.put("/k", "1", Origin(session, seq, seq - 2)) != answer
    assert book.ask(Txn(1, (), read, (), Origin(session, seq + 1, seq)))[0] != answer


def test_a_request_of_a_dead_session_is_refused_however_late(book: Book) -> None:
    session = book.begin()
    book.put("/k", "1", Origin(session, 1))
    book.ask(End(1, session, ""))
    for origin in (Origin(session, 1), Origin(session, 2), Origin(session)):
        assert book.put("/k", "late", origin).code == "no-session"
    assert book.ledger.database.value("SELECT count(*) FROM cluster_result") == 0


# history


def test_history_resumes_from_any_revision_and_knows_what_is_forgotten(book: Book) -> None:
    for at in range(1, 7):
        book.ask(Put(at, b"/a" if at % 2 else b"/b", b"%d" % at))
    everything = book.queries.history(0, b"", b"\xff")
    assert everything.until == 6
    assert everything.facts == tuple(book.facts)
    (third, fifth) = book.queries.history(1, b"/a", b"/a\0").facts
    assert (third.revision, fifth.revision) == (3, 5)
    assert book.ask(Compact(9, before=4)) == [False]
    assert book.queries.history(3, b"", b"\xff").facts == tuple(book.facts[3:])
    with pytest.raises(Compacted) as told:
        book.queries.history(2, b"", b"\xff")
    assert told.value.first == 4
    assert book.queries.compacted() == 3


def test_history_forgets_its_oldest_by_itself(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyspace, "HISTORY_ROWS", 10)
    monkeypatch.setattr(keyspace, "SLACK_ROWS", 5)
    for n in range(60):
        book.ask(Txn(1, (), (PutOp(b"/a", b"%d" % n), PutOp(b"/b", b"")), ()))
        rows = book.ledger.database.value("SELECT count(*) FROM kv_history")
        assert rows == book.ledger.database.value("SELECT rows FROM keyspace") <= 16
    monkeypatch.setattr(keyspace, "HISTORY_BYTES", 0)
    monkeypatch.setattr(keyspace, "SLACK_BYTES", 0)
    book.put("/a")
    assert book.ledger.database.query("SELECT rows, row_bytes FROM keyspace") == [(0, 0)]
    assert book.queries.compacted() == book.ledger.revision
    assert book.queries.history(book.ledger.revision, b"", b"\xff").facts == ()


def test_long_history_comes_in_pieces_of_whole_revisions(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grampus.cluster.queries.PAGE_BYTES", 50)
    monkeypatch.setattr("grampus.cluster.queries.PIECE", 7)
    for n in range(20):
        book.ask(Txn(1, (), (PutOp(b"/a", b"x" * n), PutOp(b"/b", b"")), ()))
    after, told = 0, []
    while after < book.ledger.revision:
        piece = book.queries.history(after, b"", b"\xff")
        assert piece.until > after
        after = piece.until
        told += piece.facts
    assert told == book.facts


def test_a_new_history_of_the_ledger_has_no_old_changes(book: Book) -> None:
    book.put("/a")
    book.ledger.found(b"", "h2", skip=1000)
    assert book.put("/a").revision == 1002
    with pytest.raises(Compacted):
        book.queries.history(1, b"", b"\xff")
    (fact,) = book.queries.history(1001, b"", b"\xff").facts
    assert fact.changes[0].version == 2
    assert book.ledger.database.query("SELECT rows, compacted FROM keyspace") == [(1, 1001)]


SCRIPT = """
from tests.unit.test_cluster_rules import *
book = Book()
sessions = [book.begin(f"i{n}") for n in range(8)]
for n in range(400):
    key, session = b"/k/%d" % (n * 31 % 57), Origin(sessions[n % 8], n // 8 + 1, n // 8)
    match n % 4:
        case 0: book.ask(Put(n, key, b"x" * n, session, True))
        case 1: book.ask(Put(n, key, b"y"), Delete(n, b"/k/1", b"/k/2"))
        case 2:
            old = Compare(key, "version", ">", 2)
            book.ask(Txn(n, (old,), (DeleteOp(key),), (PutOp(key, b""),)))
        case 3: book.ask(Compact(n, n - 50))
for session in sessions[:4]: book.ask(End(9, session, ""))
print(book.ledger.checksum())
"""


def test_processes_with_other_hash_seeds_have_the_same_keys() -> None:
    sums = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(["src", ".", *sys.path])},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(sums) == 1
    assert len(sums.pop()) == 65


def test_no_statement_reads_a_whole_table(book: Book) -> None:
    seen: dict[str, None] = {}

    def note(cursor: object, sql: str, values: object) -> bool:
        seen[sql] = None
        return True

    db = book.ledger.database
    db._connection.exec_trace = note  # type: ignore[assignment]
    session = book.begin()
    for n in range(4):
        book.put(f"/k/{n}", origin=Origin(session, n + 1, n), ephemeral=True)
    book.ask(Txn(1, (Compare(b"/k/1", "version", "=", 1),), (DeleteOp(b"/k/", b"/l"),), ()))
    book.ask(Compact(1, 1), End(1, session, ""))
    book.keys()
    book.get("/k/1")
    book.queries.history(0, b"/a", b"/b")
    db._connection.exec_trace = None
    statements = [sql for sql in seen if sql.split()[0] in ("SELECT", "UPDATE", "DELETE")]
    assert len(statements) > 15
    # One row; bounded by SESSIONS, and only when a session begins; from its beginning, by LIMIT.
    allowed = ("keyspace", "cluster_session USING COVERING INDEX", "kv_history")
    for sql in statements:
        marks = sql.count("?")
        plan = [row[3] for row in db.query(f"EXPLAIN QUERY PLAN {sql}", [1] * marks)]
        scans = [line for line in plan if line.startswith("SCAN")]
        assert all(line.removeprefix("SCAN ").startswith(allowed) for line in scans), (sql, plan)
        if any("kv_history" in line for line in scans):
            assert "LIMIT ?" in sql or sql == "DELETE FROM kv_history", sql
