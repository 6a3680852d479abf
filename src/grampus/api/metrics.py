"""What Prometheus is told: counts of the ledger, load of the node, stalls of the event loop.

Rule: an own registry per app, so that two nodes in one process do not mix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from grampus.api.ports import Status
from grampus.clock import Clock
from grampus.model.run import RunState, TaskState

#: Seconds between two looks at the event loop: often while something is committed, else seldom.
LOOK, IDLE_LOOK = 0.01, 0.25
#: Looks without a commit after which the node is idle.
PATIENCE = 100
_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The registry and what is in it."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._runs = self._gauge("grampus_runs", "Runs by state.", "state")
        self._tasks = self._gauge("grampus_tasks", "Tasks of active runs by state.", "state")
        self._in_flight = self._gauge("grampus_proposals_in_flight", "Commands not committed yet.")
        self._applied = self._gauge("grampus_applied_index", "Index of the last applied command.")
        self._workers = self._gauge(
            "grampus_workers_connected", "Workers that talk to this server."
        )
        self._streams = self._gauge("grampus_streams", "Open streams of events and logs.")
        self._ready = self._gauge("grampus_ready", "1 when the node takes work.")
        self._stalls = Histogram(
            "grampus_event_loop_stall_seconds",
            "How late the event loop was.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._longest = self._gauge(
            "grampus_event_loop_stall_max_seconds", "The longest that it was late, since the start."
        )
        self._longest_stall = 0.0

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def render(
        self, counts: tuple[dict[str, int], dict[str, int]], status: Status, streams: int
    ) -> bytes:
        """All of it in the text format of Prometheus."""
        runs, tasks = counts
        for run_state in RunState:
            self._runs.labels(run_state.value).set(runs.get(run_state.value, 0))
        for task_state in TaskState:
            self._tasks.labels(task_state.value).set(tasks.get(task_state.value, 0))
        self._in_flight.set(status.proposals_in_flight())
        self._applied.set(status.applied_index())
        self._workers.set(len(status.connected()))
        self._streams.set(streams)
        self._ready.set(0 if status.waiting_for() else 1)
        return generate_latest(self._registry)

    async def watch_loop(self, clock: Clock, applied: Callable[[], int]) -> None:
        """Runs for ever: sleeps a little, and observes by how much it overslept."""
        index, quiet = applied(), PATIENCE
        while True:
            look = LOOK if quiet < PATIENCE else IDLE_LOOK
            before = clock.ticks()
            await asyncio.sleep(look)
            late = max(0.0, (clock.ticks() - before) / 1000 - look)
            self._stalls.observe(late)
            if late > self._longest_stall:
                self._longest_stall = late
                self._longest.set(late)
            quiet = quiet + 1 if applied() == index else 0
            index = applied()
