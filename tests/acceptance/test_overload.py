"""More at once than a node takes: 429 with Retry-After, and in the end everybody gets through."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

import httpx

from grampus.model.run import RunState
from tests.acceptance.node import Ground, until

ONE = "workflow: one\nmax_active_runs: 100\ntasks: {a: {shell: 'true'}}\n"
#: More than the API has under way at once.
CALLERS, POLITE = 700, 40


def run_id(number: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    text = ""
    for _ in range(12):
        number, digit = divmod(number, 32)
        text += digits[digit]
    return text


async def flood(url: str, token: str) -> Counter[int]:
    """Each caller submits one run, all at the same moment, and obeys Retry-After."""
    seen: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=headers) as client:
        go = asyncio.Event()

        async def submit(number: int) -> None:
            body = {"workflow": "one", "id": run_id(number)}
            await go.wait()
            while True:
                answer = await client.post(f"{url}/api/v1/runs", json=body)
                seen[answer.status_code] += 1
                if answer.status_code == 202:
                    return
                assert answer.status_code == 429, answer.text
                assert answer.json()["type"] == "urn:grampus:problem:overloaded"
                await asyncio.sleep(float(answer.headers["retry-after"]))

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(submit(number))
            go.set()
    return seen


def test_who_is_sent_away_gets_through_in_the_end(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    with ground.up(slots=4) as node, ground.client(timeout=60) as client:
        client.apply(ground.write("one.yaml", ONE))
        token = (ground.data / "token").read_text().strip()
        answered: list[str] = []
        broken: list[BaseException] = []

        def polite() -> None:
            """A user of the Python client sees nothing of it."""
            try:
                with ground.client(timeout=60) as mine:
                    answered.extend(mine.submit("one").id for _ in range(5))
            except BaseException as error:
                broken.append(error)

        users = [threading.Thread(target=polite) for _ in range(POLITE)]
        for user in users:
            user.start()
        seen = asyncio.run(flood(node.url, token))
        for user in users:
            user.join(60)
        print(dict(seen))
        assert broken == []
        assert seen[429] > 0
        assert seen[202] == CALLERS
        # None is lost, none is there twice, and all of it is worked off.
        expected = {run_id(number) for number in range(CALLERS)} | set(answered)
        assert len(expected) == CALLERS + 5 * POLITE
        until(lambda: not list(client.runs(state=RunState.QUEUED, limit=1)), 120, every=0.5)
        until(lambda: not list(client.runs(state=RunState.RUNNING, limit=1)), 60, every=0.2)
        assert {run.id for run in client.runs(limit=2 * len(expected))} == expected
