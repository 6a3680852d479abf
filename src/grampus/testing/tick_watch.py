"""What must be true of planned ticks: each is exactly one run, or has one reason why it is none.

It sees the facts of schedules as they are applied. No run is made ahead of the true time, but for
what a small step of the clock may do, which nobody can tell from a clock that drifts.
"""

from __future__ import annotations

from typing import NamedTuple

from grampus.ledger import Ledger
from grampus.master.core.steadiness import BOUND
from grampus.model.schedule import ticks_between
from grampus.runs import events as facts
from grampus.runs.change import Graphs
from grampus.testing.world import World


class Plan(NamedTuple):
    version: int
    next_tick: int | None


class TickWatch:
    """Raises AssertionError with what is broken."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plans: dict[str, Plan] = {}
        self._spans: dict[str, list[tuple[int, int]]] = {}
        #: By id of the run: workflow and tick.
        self.runs: dict[str, tuple[str, int]] = {}

    def done(self, ledger: Ledger, fact: facts.TickDone) -> None:
        workflow, first, last = fact.workflow, fact.first, fact.last
        what = f"{workflow} {first}" if first == last else f"{workflow} {first} to {last}"
        plan = self._plans[workflow]
        assert plan.next_tick == first, f"tick {what} is not the planned one, {plan.next_tick}"
        assert not self._is_done(workflow, first, last), f"tick {what} is told twice"
        self._spans.setdefault(workflow, []).append((first, last))
        graph = Graphs().get(ledger.database, workflow, plan.version)
        assert graph is not None
        assert graph.workflow.schedule is not None
        count, _ = ticks_between(graph.workflow.schedule, first, last, 1)
        assert count == fact.count, f"{what} are {count} ticks, and {fact.count} are told"
        if fact.outcome == "run":
            assert fact.made, f"tick {what} has no run"
            assert fact.made not in self.runs, f"run {fact.made} is made twice"
            self.runs[fact.made] = workflow, first
            ahead = first - self._world.right_now()
            assert ahead <= BOUND, f"tick {what} is fired {ahead} ms before its time"
        else:
            assert fact.reason, f"tick {what} is {fact.outcome}, and nobody says why"

    def planned(self, fact: facts.SchedulePlanned) -> None:
        workflow, known = fact.workflow, self._plans.get(fact.workflow)
        self._plans[workflow] = Plan(fact.version, fact.next_tick)
        if known is None or known.next_tick is None or known.version != fact.version:
            return
        if fact.next_tick is None and known.next_tick > fact.at:
            self._take_back(workflow, fact.at)
        if fact.next_tick != known.next_tick and known.next_tick <= fact.at:
            assert self._is_done(workflow, known.next_tick, known.next_tick), (
                f"tick {workflow} {known.next_tick} is left without a word"
            )

    def _take_back(self, workflow: str, at: int) -> None:
        """It is planned anew: what was left out later than that is to come."""
        made = {tick for name, tick in self.runs.values() if name == workflow}
        spans = self._spans.get(workflow, [])
        self._spans[workflow] = [
            (first, last if first in made else min(last, at))
            for first, last in spans
            if first in made or first <= at
        ]

    def _is_done(self, workflow: str, first: int, last: int) -> bool:
        return any(a <= last and first <= b for a, b in self._spans.get(workflow, ()))

    def check_end(self, ledger: Ledger) -> None:
        """Of a ledger at rest: no scheduled run is without its tick."""
        for run, tick in ledger.database.query(
            "SELECT id, tick FROM run WHERE request LIKE 'schedule:%' ORDER BY seq"
        ):
            assert self.runs[run][1] == tick, f"run {run} is of another tick"
