"""Reads of the key space for many askers. A single key is read on the event loop, which takes a few
microseconds; ranges and history on a few threads. A reader never waits for the writer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from grampus.cluster.queries import Page, Piece, Queries
from grampus.cluster.values import KeyValue, SessionInfo
from grampus.database import Database

T = TypeVar("T")


class KeyReads:
    """Over the ledger file at `path`, which must exist."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="grampus-keys")
        self._local = threading.local()
        self._opened: list[Database] = []
        self._here = self._open()

    def _open(self) -> Queries:
        db = Database.open(self._path, readonly=True)
        self._opened.append(db)
        return Queries(db)

    def _queries(self) -> Queries:
        queries: Queries | None = getattr(self._local, "queries", None)
        if queries is None:
            queries = self._local.queries = self._open()
        return queries

    async def _ask(self, ask: Callable[[Queries], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: ask(self._queries()))

    def revision(self) -> int:
        return self._here.revision()

    def get(self, key: bytes) -> tuple[int, KeyValue | None]:
        return self._here.get(key)

    def sessions_of(self, owner: str, limit: int) -> list[str]:
        return self._here.sessions_of(owner, limit)

    def check_known(self, after: int) -> None:
        """Raises Compacted when something beyond revision `after` is forgotten."""
        self._here.check_known(after)

    async def range(self, start: bytes, end: bytes, limit: int) -> Page:
        return await self._ask(lambda queries: queries.range(start, end, limit))

    async def count(self, start: bytes, end: bytes) -> int:
        return await self._ask(lambda queries: queries.count(start, end))

    async def history(self, after: int, start: bytes, end: bytes) -> Piece:
        """Raises Compacted."""
        return await self._ask(lambda queries: queries.history(after, start, end))

    async def sessions(self) -> tuple[int, list[SessionInfo]]:
        return await self._ask(lambda queries: queries.sessions())

    def close(self) -> None:
        """Waits for reads under way."""
        self._pool.shutdown(wait=True)
        for db in self._opened:
            db.close()
