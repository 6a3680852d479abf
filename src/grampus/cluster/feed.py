"""What changes, for all who watch: one reader of the committed facts.

Rule: a watcher has a place, not a queue. The newest changes are kept once for all, within bounds;
who is further behind reads on in the ledger's history. So a slow watcher costs nothing, misses
nothing, and is told `Compacted` when the history no longer reaches back to its place. Revisions
come whole and in order. Who asks for the next change only (`ask`) needs no task: those who ask for
the same range share one look at each commit, and one answer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial

from grampus.cluster.queries import PAGE_BYTES, PIECE, Piece
from grampus.cluster.reads import KeyReads
from grampus.cluster.values import KeyChange, KeysChanged
from grampus.consensus.port import Stopped
from grampus.errors import GrampusError, Lagging, Overloaded

#: The newest changes that are kept in memory: revisions and bytes. Half is dropped beyond.
RECENT = 8_192
RECENT_BYTES = 16 * 1024 * 1024
MOST_WATCHERS = 4_096
#: Seconds of silence after which a watcher is told how far it has come.
SILENCE = 15.0


#: From the first key to before the last.
Range = tuple[bytes, bytes]
#: Called once, with what changed or the error.
Told = Callable[[Piece | GrampusError], None]


class Question:
    """For the next change in a range; everything up to now was told, or does not concern it."""

    __slots__ = ("keys", "timer", "told")

    def __init__(self, keys: Range, told: Told) -> None:
        self.keys = keys
        self.told = told
        self.timer: asyncio.TimerHandle | None = None


class _Watcher:
    def __init__(self, keys: Range, at: int) -> None:
        self.keys = keys
        #: Everything up to this revision was told, or does not concern it.
        self.at = at
        #: There may be something beyond `at`.
        self.behind = True
        self.bell = asyncio.Event()


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
        self._questions: dict[Range, dict[Question, None]] = {}
        self._asked = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._closed = False

    def start(self) -> None:
        """Everything up to now is in the ledger. Call it also when the ledger was replaced."""
        self._answer_all(Piece(self.revision, ()))
        self._facts, self._revisions, self._bytes = [], [], 0
        self._floor = self.revision = self._reads.revision()
        for watcher in self._watchers:
            watcher.behind = True
            watcher.bell.set()
        self._wake()

    @property
    def watchers(self) -> int:
        return len(self._watchers) + self._asked

    @property
    def waited(self) -> bool:
        """Somebody waits for what changes next."""
        return bool(self._watchers or self._asked or self._waiting)

    def committed(self, index: int, facts: Sequence[object]) -> None:
        if not facts:
            return
        before = self.revision
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
            if changed and _concerns(watcher.keys, changed):
                watcher.behind = True
                watcher.bell.set()
            else:
                watcher.at = max(watcher.at, self.revision)
        if changed and self._questions:
            self._answer(before, changed)
        self._wake()

    def _answer(self, before: int, changed: list[KeysChanged]) -> None:
        """Those whom it concerns; what is too large for one answer is read from the history."""
        for keys in [each for each in self._questions if _concerns(each, changed)]:
            piece = Piece(before, ()) if before < self._floor else self._recent(keys, before)
            self._tell(self._questions[keys], piece)

    def _answer_all(self, answer: Piece | GrampusError) -> None:
        for questions in list(self._questions.values()):
            self._tell(questions, answer)

    def _tell(self, questions: dict[Question, None], answer: Piece | GrampusError) -> None:
        for question in list(questions):
            self.forget(question)
            question.told(answer)

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
        if self.watchers >= MOST_WATCHERS:
            raise Overloaded(f"{MOST_WATCHERS} watch already", retry_after=5)
        watcher = _Watcher((start, end), after)
        self._watchers[watcher] = None
        try:
            while not self._closed:
                watcher.bell.clear()
                if watcher.at < self._floor:
                    piece = await self._reads.history(watcher.at, start, end)
                else:
                    piece = self._recent(watcher.keys, watcher.at)
                watcher.at = max(watcher.at, piece.until)
                # In one go with the look above: nothing can be committed in between.
                watcher.behind = watcher.at < self.revision
                if piece.facts:
                    yield piece
                elif not watcher.behind and not await _rings(watcher, silence):
                    yield Piece(watcher.at, ())
        finally:
            del self._watchers[watcher]

    def ask(
        self, start: bytes, end: bytes, after: int, seconds: float, told: Told
    ) -> Question | None:
        """As the first piece of `watch`, without waiting for it: `told` is called once, now or
        later; `forget` takes the question back. None where that is not possible: what comes after
        `after` is not in memory."""
        if not self._floor <= after <= self.revision or self._closed:
            return None
        question = Question((start, end), told)
        if self.watchers >= MOST_WATCHERS:
            told(Overloaded(f"{MOST_WATCHERS} watch already", retry_after=5))
        elif (piece := self._recent(question.keys, after)).facts:
            told(piece)
        else:
            self._questions.setdefault(question.keys, {})[question] = None
            self._asked += 1
            loop = asyncio.get_running_loop()
            question.timer = loop.call_later(seconds, partial(self._silent, question))
        return question

    def _silent(self, question: Question) -> None:
        self.forget(question)
        question.told(Piece(self.revision, ()))

    def forget(self, question: Question) -> None:
        """Nothing is told. Does nothing when it was."""
        questions = self._questions.get(question.keys, {})
        if question in questions:
            del questions[question]
            self._asked -= 1
            if not questions:
                del self._questions[question.keys]
            if question.timer is not None:
                question.timer.cancel()

    def _recent(self, keys: Range, after: int) -> Piece:
        found: list[KeysChanged] = []
        size, until = 0, self.revision
        for place in range(bisect_right(self._revisions, after), len(self._facts)):
            fact = self._facts[place]
            if mine := _pick(keys, fact):
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
        self._answer_all(Stopped("the server stops: ask another one"))


def _concerns(keys: Range, facts: list[KeysChanged]) -> bool:
    start, end = keys
    return any(start <= change.key < end for fact in facts for change in fact.changes)


def _pick(keys: Range, fact: KeysChanged) -> KeysChanged | None:
    """What of the revision is in the range."""
    start, end = keys
    mine: tuple[KeyChange, ...] = tuple(
        change for change in fact.changes if start <= change.key < end
    )
    if len(mine) == len(fact.changes):
        return fact
    return KeysChanged(fact.revision, fact.at, mine) if mine else None


async def _rings(watcher: _Watcher, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await watcher.bell.wait()
    except TimeoutError:
        return False
    return True


def _size(fact: KeysChanged) -> int:
    return sum(100 + len(c.key) + len(c.value or b"") for c in fact.changes)
