"""Sessions, the keys that go with them, and locks, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from grampus.api import kv_sessions
from tests.integration.api_node import Node, play, problem_of

SESSIONS, KEY = "/api/v1/sessions", "/api/v1/kv/%2Fa"
LOCK = "/api/v1/locks/job"


def play_kept(folder: Path, scenario: Callable[[Node], Awaitable[None]]) -> None:
    """The sessions of the node are kept, and ended when they are silent."""

    async def kept(node: Node) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(node.app.state.shared.ports.keys.run())
            await scenario(node)
            running.cancel()

    play(folder, kept)


async def begin(node: Node, **more: Any) -> int:
    answer = await node.client.post(SESSIONS, json={"name": "s", **more})
    assert answer.status_code == 201, answer.text
    session: int = answer.json()["session"]
    return session


async def take(node: Node, session: int, wait: int = 0) -> int | None:
    answer = await node.client.post(LOCK, params={"session": session, "wait": wait})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["held"] is (told["token"] is not None)
    token: int | None = told["token"]
    return token


def test_a_key_goes_with_its_session(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        session = await begin(node)
        put = await node.client.put(KEY, params={"session": session}, content=b"here")
        assert put.status_code == 200
        assert (await node.client.get(KEY)).json()["session"] == session
        at = {"If-Match": put.headers["ETag"]}
        put = await node.client.put(KEY, params={"session": session}, content=b"2", headers=at)
        assert put.status_code == 200
        assert (await node.client.delete(f"{SESSIONS}/{session}")).status_code == 204
        problem_of(await node.client.get(KEY), 404, "not-found")
        late = await node.client.put(KEY, params={"session": session}, content=b"late")
        problem_of(late, 409, "session-unknown")
        problem_of(await node.client.delete(f"{SESSIONS}/{session}"), 409, "session-unknown")

    play(tmp_path, scenario)


def test_a_session_lives_as_long_as_it_is_kept(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        session, silent = await begin(node, ttl=1_000), await begin(node, ttl=1_000)
        await node.client.put(KEY, params={"session": session}, content=b"")
        async with asyncio.timeout(8):
            while True:  # until the other one is over
                kept = await node.client.post(f"{SESSIONS}/{session}/keep-alive")
                assert kept.status_code == 204
                asked = await node.client.post(LOCK, params={"session": silent})
                if asked.status_code != 200:
                    break
                await asyncio.sleep(0.2)
        problem_of(asked, 409, "session-unknown")
        gone = await node.client.post(f"{SESSIONS}/{silent}/keep-alive")
        problem_of(gone, 409, "session-unknown")
        assert (await node.client.get(KEY)).status_code == 200

    play_kept(tmp_path, scenario)


def test_the_same_instance_is_the_same_session(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        first = await begin(node, instance="0123456789abcdef")
        assert await begin(node, instance="0123456789abcdef") == first
        assert await begin(node) != first

    play(tmp_path, scenario)


def test_a_lock_goes_down_the_line_with_growing_tokens(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        first, second, third = [await begin(node) for _ in range(3)]
        token = await take(node, first, 8_000)
        assert token is not None
        assert await take(node, first, 8_000) == token
        assert await take(node, second) is None
        assert await take(node, third) is None
        waiting = asyncio.gather(take(node, second, 8_000))
        assert (await node.client.delete(LOCK, params={"session": first})).status_code == 204
        (next_one,) = await waiting
        assert next_one is not None
        assert next_one > token
        lost = await node.client.delete(LOCK, params={"session": first})
        problem_of(lost, 409, "lock-lost")
        await node.client.delete(f"{SESSIONS}/{second}")
        last = await take(node, third, 8_000)
        assert last is not None
        assert last > next_one

    play(tmp_path, scenario)


def test_only_so_many_wait_and_nobody_loses_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_sessions, "MOST_WAITING", 1)

    async def scenario(node: Node) -> None:
        first, second, third = [await begin(node) for _ in range(3)]
        await take(node, first)
        async with asyncio.TaskGroup() as tasks:
            waits = tasks.create_task(take(node, second, 8_000))
            for _ in range(1000):
                await asyncio.sleep(0)
                if node.app.state.shared.waiting:
                    break
            begun = asyncio.get_running_loop().time()
            assert await take(node, third, 8_000) is None
            assert asyncio.get_running_loop().time() - begun < 5
            assert not waits.done()
            await node.client.delete(LOCK, params={"session": first})
            assert await waits is not None
        await node.client.delete(LOCK, params={"session": second})
        assert await take(node, third, 8_000) is not None
        assert not node.app.state.shared.waiting

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SESSIONS, {"name": "a/b"}),
        (SESSIONS, {"name": "s", "ttl": 5}),
        (SESSIONS, {"name": "s", "instance": "short"}),
        ("/api/v1/locks/a%2Fb?session=1", None),
        ("/api/v1/locks/a?session=1&wait=99999999", None),
        ("/api/v1/locks/a", None),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, path: str, body: Any) -> None:
    async def scenario(node: Node) -> None:
        answer = await node.client.post(path, json=body)
        problem_of(answer, 422, "invalid-input")

    play(tmp_path, scenario)
