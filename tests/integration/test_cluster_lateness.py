"""A process that is late is no disk that is slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.cluster.commands import Put, encode_command
from grampus.consensus.strain import FEW, SLOW
from grampus.errors import GrampusError
from tests.integration.three_servers import OneServer, Three, play

#: More than is written and synced on the event loop.
LARGE = [encode_command(Put(1, b"/large/%d" % number, bytes(60_000))) for number in range(3)]


def hold_up() -> None:
    time.sleep(SLOW + 0.1)


def test_a_loop_that_is_held_up_while_the_log_syncs_makes_no_disk_slow(tmp_path: Path) -> None:
    async def write(leader: OneServer) -> None:
        with contextlib.suppress(GrampusError):
            await leader.replica.propose(LARGE)

    async def scenario(ground: Three) -> None:
        for _ in range(2 * FEW + 2):
            leader = await ground.leader()
            writing = asyncio.ensure_future(write(leader))
            for _ in range(1000):
                if leader.replica._turns.strain._begun is not None:
                    break
                await asyncio.sleep(0)
            hold_up()
            await writing
        for server in ground.servers:
            assert not server.replica.disks
            assert not server.replica._turns.strain._slow

    play(tmp_path, scenario)
