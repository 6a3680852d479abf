"""A server on which somebody waits hears of a commit before the leader applies it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from three_servers import Three, play


def test_the_leader_tells_who_waits_before_it_applies(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        leader = await ground.leader()
        follower = (await ground.followers())[0]
        watching = ground.client(follower).watch(b"/watched")
        await anext(watching)  # it watches from here on
        writer = ground.client(leader)
        #: Messages to that follower by the time that the leader has applied the put.
        by_then: list[int] = []

        def applied(index: int, facts: Sequence[object]) -> None:
            if facts:
                by_then.append(leader.sent.count(follower.member.id))

        leader.replica.subscribe(applied)
        before: list[int] = []
        for turn in range(12):
            change = asyncio.ensure_future(anext(watching))
            await follower.waited()
            before.append(leader.sent.count(follower.member.id))
            await writer.put(b"/watched", b"%d" % turn)
            async with asyncio.timeout(10):
                await change
        # That somebody waits there is said with the answer to the first one at the latest.
        messages = [after - first for first, after in zip(before, by_then, strict=True)][1:]
        assert all(count >= 2 for count in messages), "the entry, and that it is committed"
        await watching.aclose()

    play(tmp_path, scenario)
