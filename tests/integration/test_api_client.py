"""The Python client and the API understand each other, over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest
from api_node import TOKEN, Node, json_value, play_live, shell

from grampus.errors import InvalidInput, NotFound, Refused
from grampus.model.run import AttemptState, RunState
from grampus.model.workflow import Workflow
from grampus.sdk.client import Client


def test_the_client_sees_a_run_from_its_start_to_its_end(tmp_path: Path) -> None:
    async def scenario(node: Node, http: httpx.AsyncClient) -> None:
        await node.apply(shell("w", "a", "b", params=[{"name": "x", "type": "int", "default": 1}]))
        await node.staff()
        with Client(str(http.base_url), TOKEN) as client:
            started = await asyncio.to_thread(client.submit, "w", {"x": 4}, key="k")
            again = await asyncio.to_thread(client.submit, "w", {"x": 4}, key="k")
            assert (started.created, again.created, again.id) == (True, False, started.id)
            following = asyncio.to_thread(lambda: list(client.events(started.id)))
            reading = asyncio.to_thread(lambda: list(client.logs("last", follow=True)))
            waiting = asyncio.to_thread(client.wait, started.id)

            async def work() -> None:
                for index, task in enumerate(("a", "b")):
                    n = await node.begin(started.id, index)
                    node.shelf.write(task, "grüße 🐋")
                    node.shelf.end(task)
                    await node.finish(n, output=json_value([index]), stdout=12)

            events, pieces, run, _ = await asyncio.gather(following, reading, waiting, work())
            assert events[0].type == "run.submitted"
            assert events[-1].type == "run.finished"
            assert "".join(p.text for p in pieces if p.task == "b") == "grüße 🐋"
            assert (run.state, run.params, run.counts) == (
                RunState.SUCCEEDED,
                {"x": 4},
                {"SUCCEEDED": 2},
            )
            tasks = await asyncio.to_thread(client.tasks, started.id[:5])
            assert [t.attempts[0].state for t in tasks] == [AttemptState.SUCCEEDED] * 2
            assert await asyncio.to_thread(client.result, started.id, "b") == [1]
            raw = await asyncio.to_thread(client.result_bytes, started.id, "b")
            assert msgspec.json.decode(raw) == [1]
            (listed,) = await asyncio.to_thread(lambda: list(client.runs(workflow="w", limit=5)))
            assert listed.id == started.id
            (worker,) = await asyncio.to_thread(client.workers)
            assert worker.name == "w1"
            await asyncio.to_thread(client.delete, started.id)

    play_live(tmp_path, scenario)


def test_the_client_raises_what_the_problem_is(tmp_path: Path) -> None:
    async def scenario(node: Node, http: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")

        def ask() -> None:
            with Client(str(http.base_url), TOKEN) as client:
                with pytest.raises(NotFound):
                    client.run("zzzzz")
                with pytest.raises(NotFound):
                    client.workflow("nobody")
                with pytest.raises(Refused):
                    client.delete(run)
                with pytest.raises(Refused):
                    client.delete_workflow("w")
                with pytest.raises(InvalidInput, match="nonsense"):
                    client.submit("w", {"nonsense": 1})
                shown = client.workflow("w")
                assert msgspec.convert(shown.definition, Workflow).name == "w"
                assert client.cancel(run[:6]).state is RunState.CANCELLED
                client.pause_workflow("w")
                assert [w.paused for w in client.workflows()] == [True]
            with Client(str(http.base_url), "wrong") as client, pytest.raises(Refused):
                client.run("last")

        await asyncio.to_thread(ask)

    play_live(tmp_path, scenario)
