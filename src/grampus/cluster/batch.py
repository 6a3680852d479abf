"""One batch of the log being applied: the open transaction, the index, the revision, the facts.

Rule for everything that is given a `Batch`: the same batch on the same rows gives the same rows and
facts, on every server, for ever. So: no clock, no chance, no iteration over a set, every SELECT
that returns several rows is ordered, numbers are integers.
"""

from __future__ import annotations

from grampus.database import Database


class Batch:
    """Handlers raise `revision` by one for each fact. `facts` are published after the commit."""

    def __init__(self, db: Database, index: int, term: int, revision: int) -> None:
        self.db = db
        #: Of the log entry.
        self.index = index
        self.term = term
        #: Of the newest fact.
        self.revision = revision
        self.facts: list[object] = []
