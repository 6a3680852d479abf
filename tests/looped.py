"""Runs a coroutine function as a test, on a loop of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")
#: Seconds; nothing here waits for anything but itself.
BOUND = 10.0


def looped(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(BOUND):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run
