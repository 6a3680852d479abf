"""A workflow as its runs need it: tasks by index, edges both ways. Derived once per version,
pure."""

from __future__ import annotations

from collections.abc import Iterable

from grampus.model.workflow import Retry, Task, Workflow


class Graph:
    """Edges are task indexes, in declaration order."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.tasks: tuple[Task, ...] = workflow.tasks
        self.index = {task.name: i for i, task in enumerate(workflow.tasks)}
        self.ups: list[tuple[int, ...]] = [
            tuple(self.index[name] for name in task.after) for task in workflow.tasks
        ]
        downs: list[list[int]] = [[] for _ in workflow.tasks]
        for i, ups in enumerate(self.ups):
            for up in ups:
                downs[up].append(i)
        self.downs: list[tuple[int, ...]] = [tuple(d) for d in downs]

    def downstream(self, roots: Iterable[int]) -> list[int]:
        """Every task that cannot run without `roots`, the roots themselves left out, ascending."""
        seen: dict[int, None] = {}
        stack = list(roots)
        while stack:
            for down in self.downs[stack.pop()]:
                if down not in seen:
                    seen[down] = None
                    stack.append(down)
        return sorted(seen)


def longest_delay(retry: Retry) -> int:
    """What `retry_delay` never passes, in ms."""
    return max(retry.delay, retry.max_delay)


def retry_delay(retry: Retry, failures: int, salt: int) -> int:
    """How long the next try waits after the `failures`-th failure (from 1), in ms.

    Integers only, so that every server computes the same; `salt` in [0, 2^32) stands for chance.
    """
    factor = max(1000, round(retry.factor * 1000))
    wait, limit = retry.delay, longest_delay(retry)
    for _ in range(failures - 1):
        wait = wait * factor // 1000
        if wait >= limit or wait == 0:
            break
    wait = min(wait, limit)
    spread = wait * round(retry.jitter * 1000) // 1000
    return wait - spread * salt // 2**32
