"""Queries for many askers: a few threads, each with a read-only connection of its own.

A read sees a committed state, at least as new as anything that was answered before it was asked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from grampus.database import Database
from grampus.errors import Overloaded
from grampus.runs.change import Graphs
from grampus.runs.queries import Queries
from grampus.runs.standing import Standing
from grampus.runs.story import StoryPage
from grampus.runs.views import (
    EventView,
    OutputView,
    RunView,
    ScheduleView,
    TaskView,
    TickView,
    WorkerView,
    WorkflowView,
)

#: A question may take so long, in seconds.
LONGEST = 10.0
#: How often who works in an office asks, before it gives up.
TRIES = 3
P = ParamSpec("P")
T = TypeVar("T")


class Reads:
    """The async face of `Queries` over the ledger file at `path`."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="grampus-read")
        self._local = threading.local()
        self._opened: list[Database] = []

    def _queries(self) -> Queries:
        queries: Queries | None = getattr(self._local, "queries", None)
        if queries is None:
            db = Database.open(self._path, readonly=True)
            self._opened.append(db)
            queries = self._local.queries = Queries(db, Graphs())
            self._local.db = db
        self._local.db.hurry(LONGEST)
        return queries

    async def _ask(
        self, ask: Callable[Concatenate[Queries, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: ask(self._queries(), *args, **kwargs))

    async def _insist(
        self, ask: Callable[Concatenate[Queries, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """For those who work in an office, and whom an error would end: a process that stood still
        in the middle of a read finds it late, and begins it again."""
        for left in reversed(range(TRIES)):
            try:
                return await self._ask(ask, *args, **kwargs)
            except Overloaded:
                if not left:
                    raise
        raise AssertionError

    async def workflow(self, name: str, version: int | None) -> WorkflowView | None:
        return await self._ask(Queries.workflow, name, version)

    async def workflows(self, limit: int, after: str) -> list[WorkflowView]:
        return await self._ask(Queries.workflows, limit, after)

    async def run(self, run: str) -> RunView | None:
        return await self._ask(Queries.run, run)

    async def resolve_run(self, text: str) -> list[str]:
        return await self._ask(Queries.resolve_run, text)

    async def runs(
        self, workflow: str | None, state: str | None, limit: int, before_seq: int | None
    ) -> list[RunView]:
        return await self._ask(Queries.runs, workflow, state, limit, before_seq)

    async def tasks(self, run: str) -> list[TaskView]:
        return await self._ask(Queries.tasks, run)

    async def task(self, run: str, task: str) -> TaskView | None:
        return await self._ask(Queries.task, run, task)

    async def output(self, run: str, task: str) -> OutputView | None:
        return await self._ask(Queries.output, run, task)

    async def events(self, run: str, after_revision: int, limit: int) -> list[EventView]:
        return await self._ask(Queries.events, run, after_revision, limit)

    async def workers(self) -> list[WorkerView]:
        return await self._ask(Queries.workers)

    async def story(
        self, run: str, task: str | None, after: tuple[int, int] | None, limit: int
    ) -> StoryPage | None:
        return await self._ask(Queries.story, run, task, after, limit)

    async def standing(self, run: str, task: str | None) -> Standing | None:
        return await self._ask(Queries.standing, run, task)

    async def session_name(self, session: int) -> str | None:
        return await self._ask(Queries.session_name, session)

    async def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        return await self._ask(Queries.counts)

    async def schedule(self, workflow: str) -> ScheduleView | None:
        return await self._insist(Queries.schedule, workflow)

    async def schedules(self, limit: int, after: str) -> list[ScheduleView]:
        return await self._insist(Queries.schedules, limit, after)

    async def ticks(self, workflow: str, limit: int, before: int | None) -> list[TickView]:
        return await self._ask(Queries.ticks, workflow, limit, before)

    async def has_ticks_before(self, before: int) -> bool:
        return await self._insist(Queries.has_ticks_before, before)

    async def first_run_since(self, since: int, now: int) -> int | None:
        return await self._insist(Queries.first_run_since, since, now)

    async def sizes_of_old_runs(
        self, before: int, below: int | None, limit: int, most: int
    ) -> list[int]:
        return await self._insist(Queries.sizes_of_old_runs, before, below, limit, most)

    async def referenced_blobs(self, hashes: list[str]) -> list[str]:
        return await self._insist(Queries.referenced_blobs, hashes)

    async def named_blobs(self, after: str, limit: int) -> list[str]:
        return await self._insist(Queries.named_blobs, after, limit)

    def close(self) -> None:
        """Waits for reads under way."""
        self._pool.shutdown(wait=True)
        for db in self._opened:
            db.close()
