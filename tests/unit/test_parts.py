"""The first part that fails says why the process ends; the others go on until they are told."""

from __future__ import annotations

import asyncio

import pytest

from grampus.errors import Refused, UsageError
from grampus.parts import Parts


def test_the_first_error_counts_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(error: Exception) -> None:
        raise error

    async def goes_on() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            parts = Parts(group)
            (lasting,) = parts.start(goes_on())
            parts.start(
                fails(Refused("first")), fails(UsageError("late")), fails(ValueError("bug"))
            )
            with pytest.raises(Refused, match="first"):
                await parts.fail()
            assert str(parts.failure) == "first"
            assert not lasting.done()
            lasting.cancel()

    asyncio.run(scenario())
    assert len(caplog.records) == 1
    assert "bug" in str(caplog.records[0].exc_info)


def test_a_better_reason_takes_the_place_of_the_error() -> None:
    async def fails() -> None:
        raise Refused("an echo")

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            parts = Parts(group, lambda error: UsageError(f"why: {error}"))
            parts.start(fails())
            with pytest.raises(UsageError, match="why: an echo"):
                await parts.fail()

    asyncio.run(scenario())
