"""A process of Grampus in the foreground, and how it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from grampus.cli.output import note


async def in_foreground(process: Coroutine[Any, Any, None], *, detach: bool) -> None:
    """Runs it until SIGINT or SIGTERM; a process that was told to stop has done well."""
    me = asyncio.current_task()
    assert me is not None
    cancel = me.cancel
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if stopped:
            note("still stopping: tasks get their grace before they are ended")
            return
        stopped = True
        cancel()
        note(
            "stopping: running tasks go on, and are taken over at the next start"
            if detach
            else "stopping: running tasks are told to end"
        )

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await process
    except asyncio.CancelledError:
        if not stopped:
            raise
    if stopped:
        note("stopped")
