"""One connection to one SQLite file in WAL mode.

Rules: one thread writes, and alone completes checkpoints; readers are read-only connections, and
short.
Nothing is checkpointed by itself, so that `checkpoint` can say what is durable: with
synchronous=NORMAL a power cut may take the newest transactions, whole, but none from before a
complete checkpoint.
Errors of the SQL's author are apsw's own; what the disk did wrong is `StorageFailed`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from grampus.database.failure import StorageFailed
from grampus.errors import Overloaded

log = logging.getLogger(__name__)
Value = None | int | float | str | bytes

#: Waits for another connection's lock, in ms. With one writer only a checkpoint makes one wait.
BUSY_TIMEOUT = 5_000
_STATEMENTS = 200
_WRITER_CACHE = 64 * 1024
_READER_CACHE = 8 * 1024
#: The WAL file is cut back to this many bytes when it starts again from its beginning.
_WAL_LIMIT = 64 * 1024 * 1024
_MEMORY = ":memory:"
#: Steps of SQLite's machine between two looks at the time.
_STEPS = 100_000
_ADVICE: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.FullError, "the disk is full; free some space, then start again"),
    (apsw.CorruptError, "the file is damaged; restore it from a snapshot or a backup"),
    (apsw.NotADBError, "it is not a database of ours, or it is damaged"),
    (apsw.ReadOnlyError, "it cannot be written; give this user access to it"),
    (apsw.CantOpenError, "it cannot be opened; check that it exists and who may access it"),
    (apsw.IOError, "the device reports an error; check it before starting again"),
    (apsw.PermissionsError, "access is denied; give this user access to it"),
    (apsw.NoLFSError, "the file system does not allow files of this size"),
)
_DISK = tuple(kind for kind, _ in _ADVICE)


class Database:
    """Made by `open`. Rows are plain tuples; parameters are positional (`?`)."""

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._path = path
        #: Monotonic seconds when a query must have ended; None: no hurry.
        self._until: float | None = None

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        readonly: bool = False,
        synchronous: str = "NORMAL",
        cache_kib: int | None = None,
    ) -> Database:
        """Opens or makes the file; `":memory:"` is a database of this connection alone.

        `synchronous` is NORMAL where a log stands behind the file, FULL where nothing does."""
        if synchronous not in ("NORMAL", "FULL"):
            raise ValueError(f"synchronous is NORMAL or FULL, not {synchronous}")
        flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
        if not readonly:
            flags |= apsw.SQLITE_OPEN_CREATE
        if cache_kib is None:
            cache_kib = _READER_CACHE if readonly else _WRITER_CACHE
        name = str(path)
        try:
            if name != _MEMORY and not readonly:
                Path(name).touch(0o600)
            connection = apsw.Connection(name, flags, statementcachesize=_STATEMENTS)
        except OSError as error:
            raise StorageFailed(f"cannot open {name}: {error.strerror}") from error
        except _DISK as error:
            raise _failed(name, error) from error
        database = cls(connection, name)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT)
            database.execute(f"PRAGMA cache_size = -{cache_kib}")
            database.execute("PRAGMA foreign_keys = ON")
            if not readonly:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute(f"PRAGMA synchronous = {synchronous}")
                database.execute("PRAGMA wal_autocheckpoint = 0")
                database.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            else:
                database.value("SELECT count(*) FROM sqlite_schema")
        except BaseException:
            connection.close(True)
            raise
        return database

    def hurry(self, seconds: float) -> None:
        """From now on queries may take so long together; Overloaded ends the one that takes longer.

        Whoever reads for ever keeps the WAL from beginning anew."""
        if self._until is None:
            self._connection.set_progress_handler(self._is_late, _STEPS)
        self._until = time.monotonic() + seconds

    def _is_late(self) -> bool:
        return self._until is not None and time.monotonic() > self._until

    def wal_size(self) -> int:
        """Bytes of the WAL file."""
        try:
            return Path(self._path + "-wal").stat().st_size
        except OSError:
            return 0

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> None:
        """Runs one statement to its end; rows it may return are dropped."""
        try:
            for _ in self._execute(sql, parameters):
                pass
        except _DISK as error:
            raise _failed(self._path, error) from error

    def script(self, sql: str) -> None:
        """Runs several statements without parameters."""
        self.execute(sql)

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        try:
            for _ in self._connection.executemany(sql, rows):
                pass
        except _DISK as error:
            raise _failed(self._path, error) from error

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> list[Any]:
        """All rows, as tuples."""
        try:
            return self._execute(sql, parameters).fetchall()
        except apsw.InterruptError:
            raise Overloaded("this read takes too long: ask for less, or later") from None
        except _DISK as error:
            raise _failed(self._path, error) from error

    def batches(self, sql: str, size: int) -> Iterator[list[Any]]:
        """All rows, at most `size` at a time. Inside a transaction, or they may be of several."""
        try:
            cursor = self._execute(sql)
            while rows := list(islice(cursor, size)):
                yield rows
        except _DISK as error:
            raise _failed(self._path, error) from error

    def one(self, sql: str, parameters: Sequence[Value] = ()) -> Any:
        """The first row as a tuple, or None. The statement runs to its end."""
        rows = self.query(sql, parameters)
        return rows[0] if rows else None

    def value(self, sql: str, parameters: Sequence[Value] = ()) -> Any:
        """The first column of the first row, or None."""
        rows = self.query(sql, parameters)
        return rows[0][0] if rows else None

    def changes(self) -> int:
        """Rows changed by the last INSERT, UPDATE or DELETE."""
        return self._connection.changes()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or, when an exception leaves it, nothing. Not nested.

        On a read-only connection: every query inside sees the same state."""
        self.execute("BEGIN" if self._connection.readonly("main") else "BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors of the disk.
            if self._connection.in_transaction:
                self.execute("ROLLBACK")
            raise

    def checkpoint(self) -> bool:
        """Moves the WAL into the file and syncs both. True: all that was committed is durable now.

        False: a reader still needs old pages, or another connection checkpoints; try later."""
        try:
            frames, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.LockedError):
            return False
        except _DISK as error:
            raise _failed(self._path, error) from error
        return frames == moved

    @staticmethod
    def move_ahead(path: Path | str) -> None:
        """Moves of the WAL of that file what it can, beside the connection that writes, so that its
        next `checkpoint` has little left. Not beside that one.

        Where no second connection can be had, as without free descriptors, all is left to that."""
        try:
            aside = Database.open(path)
        except (StorageFailed, apsw.BusyError) as error:
            log.info("the next checkpoint has all to do: %s", error)
            return
        try:
            aside.checkpoint()
        finally:
            aside.close()

    def copy_to(self, path: Path) -> None:
        """Writes the state of this moment to a new file, whole and compact, not synced."""
        self.execute("VACUUM INTO ?", (str(path),))

    def check(self) -> None:
        """Raises StorageFailed when the file's pages or rows are not sound."""
        found = self.value("PRAGMA quick_check(1)")
        if found != "ok":
            raise StorageFailed(f"database {self._path} is damaged: {found}")

    def close(self) -> None:
        """Safe to call again."""
        try:
            self._connection.close()
        except _DISK as error:
            raise _failed(self._path, error) from error


def _failed(path: str, error: apsw.Error) -> StorageFailed:
    advice = next(text for kind, text in _ADVICE if isinstance(error, kind))
    return StorageFailed(f"database {path}: {advice} ({error})")
