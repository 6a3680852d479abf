"""What must hold of keys, sessions, locks and watches of a cluster, whatever fails, as code.

- No session is over in the ledger while its holder may still rely on it; so two never hold a lock.
- The fencing tokens of a lock grow with every holder.
- A request that has a number in its session happens once, and never after the session's end.
- A watcher is told every change after its revision once, in order, by whole revisions, or that it
  is forgotten; a list of keys is their state at its revision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from grampus.cluster.limits import end_of
from grampus.cluster.queries import Page, Piece
from grampus.cluster.values import KeyChange, KeysChanged, KeyValue, SessionOver

#: Keys under it are written by requests with numbers only, each with a value of its own.
OWN = b"/own/"


class Holding(Protocol):
    """A process that has a session, or not, and with it a lock, or not."""

    @property
    def name(self) -> str: ...
    @property
    def relies_on(self) -> int:
        """The session that it would act on if it did something now; 0 for none."""
        ...

    @property
    def lock(self) -> str:
        """The lock that it believes to hold; "" for none."""
        ...


class KeysWatch:
    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        #: All that ever happened to keys, in order.
        self.facts: list[KeysChanged] = []
        #: Sessions that ended, and why.
        self.over: dict[int, str] = {}
        self._index = 0
        self._written: dict[bytes, int] = {}
        #: By lock: the newest token, and who has it.
        self._tokens: dict[str, tuple[int, str]] = {}

    @property
    def revision(self) -> int:
        """Of the newest change of keys."""
        return self.facts[-1].revision if self.facts else 0

    # -- what the ledgers do ----------------------------------------------------------------------

    def applied(self, index: int, facts: Iterable[object]) -> None:
        """By some server; what others apply at the same index is the same."""
        if index <= self._index:
            return
        self._index = index
        for fact in facts:
            if isinstance(fact, SessionOver):
                self.over[fact.session] = fact.reason
                self.seen[f"session {fact.reason}"] += 1
            elif isinstance(fact, KeysChanged):
                assert fact.revision > self.revision, "revisions go back"
                self.facts.append(fact)
                for change in fact.changes:
                    self._changed(fact.revision, change)

    def _changed(self, revision: int, change: KeyChange) -> None:
        assert change.session not in self.over, (
            f"revision {revision}: session {change.session} is over, and puts {change.key!r}"
        )
        if change.value is None or not change.key.startswith(OWN):
            return
        first = self._written.setdefault(change.value, revision)
        assert first == revision, (
            f"a request of a session happened at revision {first}, and again at {revision}"
        )

    # -- what holders are told, and believe -------------------------------------------------------

    def look(self, holders: Iterable[Holding]) -> None:
        held: dict[str, str] = {}
        for holder in holders:
            session = holder.relies_on
            if not session:
                continue
            assert session not in self.over, (
                f"session {session} is {self.over[session]}, and {holder.name} relies on it"
            )
            if holder.lock:
                other = held.setdefault(holder.lock, holder.name)
                assert other == holder.name, f"{other} and {holder.name} hold lock {holder.lock}"

    def took(self, lock: str, token: int, holder: str) -> None:
        """It has the lock, and relies on it."""
        self.seen["locks taken"] += 1
        before, whose = self._tokens.get(lock, (0, ""))
        assert token > before, (
            f"{holder} has token {token} of lock {lock}, after {whose} had {before}"
        )
        self._tokens[lock] = token, holder

    def wrote(self, value: bytes, revision: int) -> None:
        """It was answered that this was put at `revision`."""
        self.seen["numbered writes"] += 1
        assert self._written.get(value) == revision, (
            f"{value!r} was put at revision {self._written.get(value)}, not at {revision}"
        )

    # -- what watchers are told -------------------------------------------------------------------

    def told(self, who: str, prefix: bytes, first: int | None, piece: Piece) -> None:
        """In answer to what changed from revision `first` on; None: from now on."""
        after = piece.until if first is None else first - 1
        assert piece.until >= after, f"{who} asked beyond {after}, and is told up to {piece.until}"
        self.seen["changes told"] += len(piece.facts)
        expected = self._between(prefix, after, piece.until)
        assert list(piece.facts) == expected, (
            f"{who} watches {prefix!r} and is told, of ({after}, {piece.until}],"
            f" {_revisions(piece.facts)}, not {_revisions(expected)}"
        )

    def listed(self, who: str, prefix: bytes, page: Page) -> None:
        state: dict[bytes, KeyValue] = {}
        for fact in self._between(prefix, 0, page.revision):
            for key, value, created, version, session in map(_fields, fact.changes):
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = KeyValue(key, value, created, fact.revision, version, session)
        assert not page.more, "there are only a few keys"
        assert list(page.items) == [state[key] for key in sorted(state)], (
            f"{who} reads other keys under {prefix!r} than there were at {page.revision}"
        )

    def _between(self, prefix: bytes, after: int, until: int) -> list[KeysChanged]:
        end = end_of(prefix)
        found: list[KeysChanged] = []
        for fact in reversed(self.facts):
            if fact.revision <= after:
                break
            if fact.revision > until:
                continue
            mine = tuple(change for change in fact.changes if prefix <= change.key < end)
            if mine:
                found.append(KeysChanged(fact.revision, fact.at, mine))
        return found[::-1]


def _fields(change: KeyChange) -> tuple[bytes, bytes | None, int, int, int]:
    return change.key, change.value, change.created, change.version, change.session


def _revisions(facts: Sequence[KeysChanged]) -> list[int]:
    return [fact.revision for fact in facts]
