"""Waiting, in a process like any other: it can be cancelled, timed out and lost."""

from __future__ import annotations

from grampus.model.workflow import Sleep


def argv(action: Sleep) -> list[str]:
    return ["/bin/sleep", f"{action.duration / 1000:.3f}"]
