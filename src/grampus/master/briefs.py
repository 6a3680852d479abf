"""What a worker must know to run an attempt: the task, its params and its inputs, read from the
ledger.

Reads are point look-ups by primary key, on the loop, from a connection of its own: an attempt that
has started is committed, so what it needs is there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from grampus.master.core.turn import SendAssign
from grampus.model.run import Value
from grampus.model.template import references_in
from grampus.model.workflow import Task
from grampus.protocol import Assign, Invocation
from grampus.runs.graph import Graph
from grampus.runs.queries import Queries

#: Inline inputs of one assignment, in bytes, all together; what is beyond travels as blobs.
INLINE_INPUTS = 64 * 1024
_RUNS = 4096


class RunBrief(NamedTuple):
    """What all tasks of a run share."""

    workflow: str
    version: int
    params: bytes
    tick: int
    graph: Graph


class Briefs:
    """`keep_blob` stores bytes under their hash, durably, and returns the hash."""

    def __init__(self, queries: Queries, keep_blob: Callable[[bytes], str]) -> None:
        self._queries = queries
        self._keep_blob = keep_blob
        self._runs: OrderedDict[str, RunBrief] = OrderedDict()
        self._specs: OrderedDict[tuple[str, int, int], tuple[bytes, tuple[int, ...]]]
        self._specs = OrderedDict()

    def assign(self, order: SendAssign) -> Assign | None:
        """None when the run is gone: its Kill or its end is on the way."""
        run = self._run(order.run)
        if run is None:
            return None
        spec, mentioned = self._spec(run, order.index)
        task = run.graph.tasks[order.index]
        schedule = run.graph.workflow.schedule
        return Assign(
            order.session,
            order.n,
            Invocation(
                run=order.run, workflow=run.workflow, version=run.version, task=task.name,
                attempt=order.attempt, fencing_token=order.token, spec=spec, params=run.params,
                tick=run.tick, tz=schedule.tz if schedule else "UTC",
                bundle=run.graph.workflow.bundle,
                inputs=self._inputs(order.run, run.graph, mentioned) if mentioned else {},
            ),
        )  # fmt: skip

    def forget(self, run: str) -> None:
        self._runs.pop(run, None)

    def _run(self, run: str) -> RunBrief | None:
        known = self._runs.get(run)
        if known is None:
            row = self._queries.run_inputs(run)
            if row is None:
                return None
            workflow, version, params, tick = row
            graph = self._queries.graph(workflow, version)
            if graph is None:
                return None
            known = self._runs[run] = RunBrief(workflow, version, params, tick, graph)
            if len(self._runs) > _RUNS:
                self._runs.popitem(last=False)
        return known

    def _spec(self, run: RunBrief, index: int) -> tuple[bytes, tuple[int, ...]]:
        """The task as JSON, and the indexes of the tasks whose outputs it mentions."""
        key = (run.workflow, run.version, index)
        known = self._specs.get(key)
        if known is None:
            task: Task = run.graph.tasks[index]
            names = references_in(msgspec.to_builtins(task)).tasks
            known = msgspec.json.encode(task), tuple(run.graph.index[name] for name in names)
            self._specs[key] = known
            if len(self._specs) > _RUNS:
                self._specs.popitem(last=False)
        return known

    def _inputs(self, run: str, graph: Graph, mentioned: tuple[int, ...]) -> dict[str, Value]:
        inputs: dict[str, Value] = {}
        room = INLINE_INPUTS
        for index in mentioned:
            value = self._queries.value(run, index)
            if value is None:
                continue
            if value.data is not None and value.size > room:
                value = Value(value.encoding, None, self._keep_blob(value.data), value.size)
            elif value.data is not None:
                room -= value.size
            inputs[graph.tasks[index].name] = value
        return inputs
