"""What may be behind says so: in its header, to the client, and on stderr of a command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from front import TOKEN, by_the_command, front
from three_servers import Three, play

from grampus.errors import NoQuorum
from grampus.sdk.client import Client

pytestmark = pytest.mark.raft

KEY = "/api/v1/kv/%2Fa"


def test_a_stale_answer_says_for_how_long_no_leader_was_heard(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        follower = (await ground.followers())[0]
        await follower.keys.put(b"/a", b"1")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            front(follower) as url,
            httpx.AsyncClient(base_url=url, headers=headers) as http,
        ):
            fresh = await http.get(KEY)
            assert "grampus-stale" not in fresh.headers
            stale = await http.get(KEY, params={"stale": "true"})
            assert (stale.status_code, int(stale.headers["grampus-stale"]) < 1000) == (200, True)
            follower.cut = True
            began = asyncio.get_running_loop().time()
            while follower.replica.leader_id:  # noqa: ASYNC110, of what nobody is told
                await asyncio.sleep(0.02)
            await asyncio.sleep(1.0)
            before = 1000 * (asyncio.get_running_loop().time() - began)
            stale = await http.get(KEY, params={"stale": "true"})
            age = int(stale.headers["grampus-stale"])
            after = 1000 * (asyncio.get_running_loop().time() - began)
            # A leader is heard several times a second.
            assert before - 1 <= age <= after + 1000
            absent = await http.get("/api/v1/kv/none", params={"stale": "true"})
            assert (absent.status_code, "grampus-stale" in absent.headers) == (404, True)

            with Client(url, TOKEN) as client:
                told: list[int] = []
                client.on_stale(told.append)
                got = await asyncio.to_thread(client.kv.get, "/a", stale=True)
                assert got.value == b"1"
                assert client.unheard is not None
                assert told == [client.unheard]
                assert client.unheard >= age
                with pytest.raises(NoQuorum):
                    await asyncio.to_thread(client.kv.get, "/a")
                assert client.unheard is None
            code, said = await by_the_command(url, tmp_path, ("--stale", "kv", "get", "/a"))
            assert code == 0
            assert "stale: as one server has it, which heard the leader " in said

    play(tmp_path, scenario)


def test_a_leader_that_lost_its_majority_counts_from_then(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        leader = await ground.leader()
        assert leader.replica.unheard == 0
        for other in await ground.followers():
            await other.kill()
        await leader.replica.deposed(leader.replica.term)
        await asyncio.sleep(0.5)
        assert 400 <= leader.replica.unheard <= 2500

    play(tmp_path, scenario)
