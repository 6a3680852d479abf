"""The thin wrapper over SQLite: durability switches, transactions, checkpoints, errors."""

from __future__ import annotations

import errno
import resource
import threading
from pathlib import Path

import pytest

from grampus.database import Database, Migration, StorageFailed, migrate
from grampus.database.migrations import schema_version


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def made(path: Path) -> Database:
    db = Database.open(path)
    db.script("CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE TABLE u (a)")
    return db


def test_a_file_is_private_and_opened_with_the_switches_that_durability_needs(path: Path) -> None:
    db = Database.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert db.value("PRAGMA journal_mode") == "wal"
    assert db.value("PRAGMA synchronous") == 1
    assert db.value("PRAGMA wal_autocheckpoint") == 0
    assert Database.open(path, synchronous="FULL").value("PRAGMA synchronous") == 2
    with pytest.raises(ValueError, match="OFF"):
        Database.open(path, synchronous="OFF")


def test_rows_come_as_tuples(path: Path) -> None:
    db = made(path)
    db.executemany("INSERT INTO t VALUES (?, ?)", [(1, b"x"), (2, None), (3, "y")])
    assert db.query("SELECT a, b FROM t ORDER BY a") == [(1, b"x"), (2, None), (3, "y")]
    assert db.one("SELECT a, b FROM t WHERE a = ?", (2,)) == (2, None)
    assert db.one("SELECT a FROM t WHERE a = 9") is None
    assert db.value("SELECT b FROM t WHERE a = ?", (3,)) == "y"
    assert db.value("SELECT b FROM t WHERE a = 9") is None
    db.execute("DELETE FROM t WHERE a > 1")
    assert db.changes() == 2


def test_a_statement_that_returns_rows_runs_to_its_end(path: Path) -> None:
    db = made(path)
    db.executemany("INSERT INTO t VALUES (?, 0)", [(i,) for i in range(10)])
    assert db.value("UPDATE t SET b = 1 RETURNING a") == 0
    assert db.value("SELECT sum(b) FROM t") == 10
    db.execute("UPDATE t SET b = 2 RETURNING a")
    assert db.value("SELECT sum(b) FROM t") == 20


def test_a_transaction_is_all_or_nothing_and_not_nested(path: Path) -> None:
    db = made(path)

    def interrupted() -> None:
        with db.transaction():
            db.execute("INSERT INTO t VALUES (1, 1)")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert db.query("SELECT * FROM t") == []
    with db.transaction():
        db.execute("INSERT INTO t VALUES (1, 1)")
    with db.transaction(), pytest.raises(Exception, match="within a transaction"):
        with db.transaction():
            pass
    assert db.value("SELECT count(*) FROM t") == 1


def test_a_reader_sees_one_state_in_a_transaction_and_writes_nothing(path: Path) -> None:
    db = made(path)
    reader = Database.open(path, readonly=True)
    with reader.transaction():
        assert reader.value("SELECT count(*) FROM t") == 0
        db.execute("INSERT INTO t VALUES (1, 1)")
        assert reader.value("SELECT count(*) FROM t") == 0
    assert reader.value("SELECT count(*) FROM t") == 1
    with pytest.raises(StorageFailed, match="readonly"):
        reader.execute("INSERT INTO t VALUES (2, 1)")


def test_a_checkpoint_is_complete_only_when_no_reader_is_in_the_way(path: Path) -> None:
    db = made(path)
    db.execute("INSERT INTO t VALUES (1, 1)")
    assert db.checkpoint()
    assert db.checkpoint(), "nothing new: still complete"
    reader = Database.open(path, readonly=True)
    with reader.transaction():
        reader.query("SELECT * FROM t")
        db.execute("INSERT INTO t VALUES (2, 1)")
        assert not db.checkpoint()
    assert db.checkpoint()
    # Without its WAL the file alone holds everything.
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    assert Database.open(copy).value("SELECT count(*) FROM t") == 2


def test_most_of_the_wal_is_moved_beside_whoever_writes(path: Path) -> None:
    db = made(path)
    with db.transaction():
        db.executemany("INSERT INTO t VALUES (?, 1)", [(n,) for n in range(1000)])
    with db.transaction():
        db.execute("INSERT INTO t VALUES (1000, 1)")
        Database.move_ahead(path)
    # Without its WAL the file alone holds what was committed by then, and nothing of what was not.
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    assert Database.open(copy).value("SELECT count(*) FROM t") == 1000
    assert db.checkpoint()
    copy.write_bytes(path.read_bytes())
    assert Database.open(copy).value("SELECT count(*) FROM t") == 1001


def test_what_cannot_be_moved_ahead_is_left_to_the_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = made(path)

    def no_descriptor(file: Path, mode: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "touch", no_descriptor)
    Database.move_ahead(path)
    assert db.checkpoint()


def test_a_database_in_memory_is_for_this_connection_alone() -> None:
    db, other = Database.open(":memory:"), Database.open(":memory:")
    db.script("CREATE TABLE t (a)")
    with db.transaction():
        db.execute("INSERT INTO t VALUES (1)")
    assert db.checkpoint()
    assert other.query("SELECT name FROM sqlite_schema") == []
    db.close()
    db.close()


def test_a_connection_may_move_to_another_thread(path: Path) -> None:
    db, seen = made(path), []
    thread = threading.Thread(target=lambda: seen.append(db.value("SELECT 7")))
    thread.start()
    thread.join(10)
    assert seen == [7]


def test_a_damaged_file_is_told_as_such(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageFailed, match="not a database of ours"):
        Database.open(path)
    with pytest.raises(StorageFailed, match="cannot be opened"):
        Database.open(tmp_path / "missing.db", readonly=True)
    with pytest.raises(StorageFailed, match="No such file"):
        Database.open(tmp_path / "missing" / "x.db")


def test_a_damaged_page_is_told_as_such(path: Path) -> None:
    db = made(path)
    db.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x" * 100) for i in range(1000)])
    db.checkpoint()
    db.close()
    data = bytearray(path.read_bytes())
    data[4096 * 3 :] = b"\xff" * len(data[4096 * 3 :])
    path.write_bytes(data)
    with pytest.raises(StorageFailed, match="damaged"):
        Database.open(path).query("SELECT * FROM t")


def test_a_full_disk_rolls_back_and_is_told(path: Path) -> None:
    db = made(path)
    db.execute("INSERT INTO t VALUES (0, 'kept')")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 * 1024, hard))
    try:
        rows = [(i, "x" * 500) for i in range(1, 2000)]
        with pytest.raises(StorageFailed), db.transaction():
            db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert db.query("SELECT * FROM t") == [(0, "kept")]


MIGRATIONS = [
    Migration(1, "CREATE TABLE t (a); CREATE TABLE u (a)"),
    Migration(2, "ALTER TABLE t ADD COLUMN b; INSERT INTO t VALUES (1, 2)"),
    Migration(3, "CREATE TABLE t (again)"),
]


def test_migrations_run_once_up_to_the_version_that_is_wanted(path: Path) -> None:
    db = Database.open(path)
    with db.transaction():
        assert migrate(db, MIGRATIONS, 1) == [1]
    with db.transaction():
        assert migrate(db, MIGRATIONS, 2) == [2]
    with db.transaction():
        assert migrate(db, MIGRATIONS, 2) == []
    assert schema_version(db) == 2
    with pytest.raises(StorageFailed, match="use the newer Grampus"):
        migrate(db, MIGRATIONS, 1)


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    db = Database.open(path)
    with pytest.raises(Exception, match="already exists"), db.transaction():
        migrate(db, MIGRATIONS, 3)
    assert schema_version(db) == 0
    assert db.query("SELECT name FROM sqlite_schema") == []


def test_migrations_are_numbered_without_gaps(path: Path) -> None:
    db = Database.open(path)
    with pytest.raises(ValueError, match="without gaps"):
        migrate(db, MIGRATIONS[1:], 2)
    with pytest.raises(ValueError, match="no migration 4"):
        migrate(db, MIGRATIONS, 4)
