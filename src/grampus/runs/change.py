"""One batch of the log as the run store changes it: the batch, and the graphs of its workflows.

The rules of `cluster.batch` hold for everything that is given a `Change`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import msgspec

from grampus.cluster.batch import Batch
from grampus.database import Database
from grampus.model.workflow import read_workflow
from grampus.runs.events import Event
from grampus.runs.graph import Graph

E = TypeVar("E", bound=Event)

_JSON = msgspec.json.Encoder()
_GRAPHS = 256


class Graphs:
    """Graphs of workflow versions, decoded once. A version never changes, so a cache cannot be
    stale."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], Graph] = OrderedDict()

    def get(self, db: Database, name: str, version: int) -> Graph | None:
        key = (name, version)
        graph = self._known.get(key)
        if graph is None:
            content = db.value(
                "SELECT content FROM workflow_version WHERE name = ? AND version = ?", key
            )
            if content is None:
                return None
            graph = self._known[key] = Graph(read_workflow(content))
            if len(self._known) > _GRAPHS:
                self._known.popitem(last=False)
        return graph

    def peek(self, name: str, version: int) -> Graph | None:
        """Only if it is decoded already. May be called on any thread."""
        return self._known.get((name, version))

    def drop(self, name: str, version: int) -> None:
        """For a version that was never committed or is deleted: its number may come back."""
        self._known.pop((name, version), None)

    def clear(self) -> None:
        self._known.clear()


class Change:
    """What handlers write through."""

    def __init__(self, batch: Batch, graphs: Graphs) -> None:
        self.batch = batch
        self.db = batch.db
        self._graphs = graphs
        self._kept: list[Event] = []

    @property
    def index(self) -> int:
        """Of the log entry."""
        return self.batch.index

    @property
    def term(self) -> int:
        """Of the log entry."""
        return self.batch.term

    def graph(self, name: str, version: int) -> Graph:
        """The graph of a version that must exist."""
        graph = self._graphs.get(self.db, name, version)
        if graph is None:
            raise RuntimeError(f"workflow {name} version {version} is not in the ledger")
        return graph

    def find_graph(self, name: str, version: int) -> Graph | None:
        return self._graphs.get(self.db, name, version)

    def forget_graph(self, name: str, version: int) -> None:
        self._graphs.drop(name, version)

    def next_revision(self) -> int:
        """The revision that the next fact will have."""
        return self.batch.revision + 1

    def emit(self, kind: type[E], *, at: int, keep: bool = True, **fields: object) -> E:
        """Adds a fact. `keep=False`: published, but not stored in the run's history."""
        self.batch.revision += 1
        fact = kind(revision=self.batch.revision, at=at, **fields)  # type: ignore[arg-type]
        self.batch.facts.append(fact)
        if keep:
            self._kept.append(fact)
        return fact

    def store_facts(self) -> None:
        """Writes the facts' rows; once, at the end of the batch."""
        if not self._kept:
            return
        self.db.executemany(
            "INSERT INTO event (run, revision, at, kind, data) VALUES (?, ?, ?, ?, ?)",
            [
                (f.run, f.revision, f.at, f.__struct_config__.tag, _JSON.encode(f))
                for f in self._kept
            ],
        )
