"""What changes, for all who watch: one reader of the committed facts.

Rule: a watcher has a place, not a queue. The newest changes are kept once for all, within bounds;
who is further behind reads on in the ledger's history. So a slow watcher costs nothing, misses
nothing, and is told `Compacted` when the history no longer reaches back to its place. Revisions
come whole and in order.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence

from grampus.cluster.queries import PAGE_BYTES, PIECE, Piece
from grampus.cluster.reads import KeyReads
from grampus.cluster.values import KeyChange, KeysChanged
from grampus.errors import Lagging, Overloaded

#: The newest changes that are kept in memory: revisions and bytes. Half is dropped beyond.
RECENT = 8_192
RECENT_BYTES = 16 * 1024 * 1024
MOST_WATCHERS = 4_096
#: Seconds of silence after which a watcher is told how far it has come.
SILENCE = 15.0


class _Watcher:
    def __init__(self, start: bytes, end: bytes, at: int) -> None:
        self.start = start
        self.end = end
        #: Everything up to this revision was told, or does not concern it.
        self.at = at
        #: There may be something beyond `at`.
        self.behind = True
        self.bell = asyncio.Event()

    def concerned(self, facts: list[KeysChanged]) -> bool:
        start, end = self.start, self.end
        return any(start <= change.key < end for fact in facts for change in fact.changes)

    def pick(self, fact: KeysChanged) -> KeysChanged | None:
        """What of the revision is in the range."""
        mine: tuple[KeyChange, ...] = tuple(
            change for change in fact.changes if self.start <= change.key < self.end
        )
        if len(mine) == len(fact.changes):
            return fact
        return KeysChanged(fact.revision, fact.at, mine) if mine else None


class Feed:
    """`committed` is the replica's listener; subscribe it, then call `start`."""

    def __init__(self, reads: KeyReads) -> None:
        self._reads = reads
        #: Of the newest fact that was told.
        self.revision = 0
        #: All changes beyond it are in `_facts`.
        self._floor = 0
        self._facts: list[KeysChanged] = []
        self._revisions: list[int] = []
        self._bytes = 0
        self._watchers: dict[_Watcher, None] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._closed = False

    def start(self) -> None:
        """Everything up to now is in the ledger. Call it also when the ledger was replaced."""
        self._facts, self._revisions, self._bytes = [], [], 0
        self._floor = self.revision = self._reads.revision()
        for watcher in self._watchers:
            watcher.behind = True
            watcher.bell.set()
        self._wake()

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    @property
    def waited(self) -> bool:
        """Somebody waits for what changes next."""
        return bool(self._watchers or self._waiting)

    def committed(self, index: int, facts: Sequence[object]) -> None:
        if not facts:
            return
        last: int = facts[-1].revision  # type: ignore[attr-defined]
        self.revision = max(self.revision, last)
        changed = [fact for fact in facts if isinstance(fact, KeysChanged)]
        for fact in changed:
            self._facts.append(fact)
            self._revisions.append(fact.revision)
            self._bytes += _size(fact)
        if len(self._facts) > RECENT or self._bytes > RECENT_BYTES:
            self._drop()
        for watcher in self._watchers:
            if watcher.behind:
                continue
            if changed and watcher.concerned(changed):
                watcher.behind = True
                watcher.bell.set()
            else:
                watcher.at = max(watcher.at, self.revision)
        self._wake()

    def _drop(self) -> None:
        half = (len(self._facts) + 1) // 2
        self._floor = max(self._floor, self._revisions[half - 1])
        self._bytes -= sum(map(_size, self._facts[:half]))
        del self._facts[:half]
        del self._revisions[:half]

    def _wake(self) -> None:
        if not self._waiting:
            return
        for revision, future in self._waiting:
            if revision <= self.revision and not future.done():
                future.set_result(None)
        self._waiting = [(r, f) for r, f in self._waiting if not f.done()]

    async def reached(self, revision: int, seconds: float) -> None:
        """Waits until this server has come to `revision`. Raises Lagging."""
        if revision <= self.revision:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise Lagging(
                f"this server is at revision {self.revision}, and {revision} was seen before: ask"
                " another server, or again"
            ) from None
        finally:
            self._waiting = [(r, f) for r, f in self._waiting if f is not future]

    async def watch(
        self, start: bytes, end: bytes, after: int, silence: float = SILENCE
    ) -> AsyncGenerator[Piece, None]:
        """What changes in the range beyond revision `after`, until the server stops.

        A piece without facts says that it is silent, and how far everything is told. Raises
        Compacted, at the beginning or later; Overloaded when too many watch."""
        if len(self._watchers) >= MOST_WATCHERS:
            raise Overloaded(f"{MOST_WATCHERS} watch already", retry_after=5)
        watcher = _Watcher(start, end, after)
        self._watchers[watcher] = None
        try:
            while not self._closed:
                watcher.bell.clear()
                if watcher.at < self._floor:
                    piece = await self._reads.history(watcher.at, start, end)
                else:
                    piece = self._recent(watcher)
                watcher.at = max(watcher.at, piece.until)
                # In one go with the look above: nothing can be committed in between.
                watcher.behind = watcher.at < self.revision
                if piece.facts:
                    yield piece
                elif not watcher.behind and not await _rings(watcher, silence):
                    yield Piece(watcher.at, ())
        finally:
            del self._watchers[watcher]

    def _recent(self, watcher: _Watcher) -> Piece:
        found: list[KeysChanged] = []
        size, until = 0, self.revision
        for place in range(bisect_right(self._revisions, watcher.at), len(self._facts)):
            fact = self._facts[place]
            if mine := watcher.pick(fact):
                size += _size(mine)
                if found and (size > PAGE_BYTES or len(found) == PIECE):
                    until = found[-1].revision
                    break
                found.append(mine)
        return Piece(until, tuple(found))

    def close(self) -> None:
        """Ends all watches, and those to come at once."""
        self._closed = True
        for watcher in self._watchers:
            watcher.bell.set()


async def _rings(watcher: _Watcher, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await watcher.bell.wait()
    except TimeoutError:
        return False
    return True


def _size(fact: KeysChanged) -> int:
    return sum(100 + len(c.key) + len(c.value or b"") for c in fact.changes)
