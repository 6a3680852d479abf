"""What a worker was given ahead of a free slot does not stay behind something that lasts."""

from __future__ import annotations

from pathlib import Path

from grampus.model.run import AttemptState, RunState
from tests.acceptance.node import Ground, until

SHORT = "workflow: short\ntasks: {a: {shell: 'true', max_lost: 0}}\n"
LONG = "workflow: long\ntasks: {a: {shell: 'sleep 60', priority: 5}}\n"


def test_what_waits_behind_a_long_task_is_given_back_and_explained(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    with ground.up(slots=1), ground.client() as client:
        client.apply(ground.write("short.yaml", SHORT))
        client.apply(ground.write("long.yaml", LONG))
        # So many that the scheduler knows them for short.
        for submitted in client.submit_many([{"workflow": "short"}] * 60):
            assert client.wait(submitted.id, timeout=30).state is RunState.SUCCEEDED
        runs = client.submit_many([{"workflow": name} for name in ("long", "short", "short")])
        long, *behind = [run.id for run in runs]

        def codes(run: str) -> set[str]:
            return {reason.code for task in client.explain(run).tasks for reason in task.reasons}

        until(lambda: codes(long) == {"running"})
        # At first the worker has them ahead; after a second it has not.
        until(lambda: all("no-free-slot" in codes(run) for run in behind), within=10)
        told = client.explain(behind[0]).tasks[0].reasons[0].text
        assert f"1 of 1 busy with {long}/a" in told
        states = {a.state for run in behind for task in client.tasks(run) for a in task.attempts}
        assert states <= {AttemptState.CANCELLED}
        client.cancel(long)
        for run in behind:
            assert client.wait(run, timeout=20).state is RunState.SUCCEEDED
        given_back = [
            attempt
            for run in behind
            for task in client.tasks(run)
            for attempt in task.attempts
            if attempt.state is AttemptState.CANCELLED
        ]
        assert 1 <= len(given_back) <= 2
        assert all("no slot became free" in attempt.error for attempt in given_back)
