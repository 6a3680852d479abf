"""Run control, stories, explanations and batches over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from api_node import Node, an_id, play, problem_of, shell

from grampus.api.ports import WorkerLoad
from grampus.api.schemas.runs import BATCH
from grampus.errors import Overloaded
from grampus.model.run import AttemptState


def chain(name: str) -> dict[str, Any]:
    definition = shell(name, "a", "b")
    definition["tasks"][1]["after"] = ["a"]
    return definition


async def post(node: Node, path: str, **more: Any) -> Any:
    return await node.client.post(f"/api/v1/runs{path}", **more)


def test_a_run_is_paused_resumed_and_run_again(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(chain("w"))
        await node.staff()
        run = await node.start("w")
        for verb, state in (("pause", "PAUSED"), ("pause", "PAUSED"), ("resume", "RUNNING")):
            answer = await post(node, f"/{run}/{verb}")
            assert (answer.status_code, answer.json()) == (202, {"id": run, "state": state})
        problem_of(await post(node, f"/{run}/retry"), 409, "conflict")
        await node.finish(await node.begin(run))
        await node.finish(await node.begin(run, 1), AttemptState.FAILED)
        problem_of(await post(node, f"/{run}/pause"), 409, "conflict")
        again = await post(node, f"/{run}/retry")
        assert again.json() == {"id": run, "round": 2, "tasks": ["b"]}
        await node.finish(await node.begin(run, 1, attempt=2))
        from_a = await post(node, f"/{run}/retry", params={"from": "a"})
        assert from_a.json() == {"id": run, "round": 3, "tasks": ["a", "b"]}
        await post(node, f"/{run}/cancel")
        refused = problem_of(await post(node, f"/{run}/retry"), 409, "conflict")
        assert "start a new run" in refused["detail"]
        problem_of(await post(node, f"/{run}/retry?from=nope"), 409, "conflict")
        problem_of(await post(node, "/aaaaaaaaaaaa/retry"), 404, "not-found")

    play(tmp_path, scenario)


def test_only_what_a_silent_worker_holds_is_declared_lost(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(chain("w"))
        await node.staff()
        run = await node.start("w")
        path = f"/{run}/tasks/a/declare-lost"
        problem_of(await post(node, f"/{run}/tasks/x/declare-lost"), 404, "not-found")
        problem_of(await post(node, path), 409, "conflict")
        await node.begin(run)
        node.status.loads[node.session] = WorkerLoad()
        refused = problem_of(await post(node, path), 409, "conflict")
        assert "is connected" in refused["detail"]
        node.status.loads.clear()
        lost = await post(node, path)
        assert (lost.status_code, lost.json()) == (202, {"task": "a", "state": "READY"})

    play(tmp_path, scenario)


def test_a_story_comes_in_pages_and_of_one_task(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(chain("w"))
        await node.staff()
        run = await node.start("w")
        await node.finish(await node.begin(run))
        url = f"/api/v1/runs/{run}/story"
        whole = (await node.client.get(url)).json()
        assert whole["next"] is None
        lines, cursor = [], None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await node.client.get(url, params=query)).json()
            lines += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        assert lines == whole["items"]
        assert lines[0]["text"] == "submitted: w version 1"
        ended = next(line for line in lines if line["type"] == "attempt.finished")
        assert ended["task"] == "a"
        assert ended["took"] is not None
        one = (await node.client.get(url, params={"task": "b"})).json()["items"]
        assert {line["task"] for line in one} == {"", "b"}
        problem_of(await node.client.get(url, params={"task": "x"}), 404, "not-found")
        problem_of(await node.client.get(url, params={"cursor": "x"}), 422, "invalid-input")

    play(tmp_path, scenario)


def test_an_explanation_tells_how_much_a_running_attempt_wrote(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(chain("w"))
        await node.staff()
        run = await node.start("w")
        await node.begin(run)
        url = f"/api/v1/runs/{run}/explain"
        found = (await node.client.get(url, params={"task": "a"})).json()
        assert found["tasks"][0]["written"] == 0
        node.shelf.fault = Overloaded("too much")
        found = (await node.client.get(url, params={"task": "a"})).json()
        assert found["tasks"][0]["written"] is None
        whole = (await node.client.get(url)).json()
        assert [(t["task"], t["reasons"][0]["code"]) for t in whole["tasks"]] == [
            ("a", "starting"), ("b", "upstream"),
        ]  # fmt: skip
        problem_of(await node.client.get(url, params={"task": "x"}), 404, "not-found")

    play(tmp_path, scenario)


def test_each_run_of_a_batch_is_answered_alone(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        params = [{"name": "n", "type": "int", "required": True}]
        await node.apply(shell("w", params=params))
        await node.start("w", params={"n": 1}, id=an_id(100))
        items = [
            {"workflow": "w", "params": {"n": 1}, "id": an_id(100)},
            {"workflow": "w", "params": {"n": 2}, "id": an_id(100)},
            {"workflow": "w", "params": {"n": 3}, "id": an_id(300)},
            {"workflow": "nope", "id": an_id(400)},
            {"workflow": "w", "params": {"n": "x"}, "id": an_id(500)},
            {"workflow": "w", "params": {"n": 6}},
        ]
        answer = await post(node, ":batch", json={"items": items})
        assert answer.status_code == 202
        got = answer.json()["items"]
        assert [item["created"] for item in got] == [False, False, True, False, False, True]
        kinds = [item["problem"] and item["problem"]["type"].split(":")[-1] for item in got]
        assert kinds == [None, "conflict", None, "not-found", "invalid-input", None]
        assert got[4]["problem"]["problems"][0]["field"] == "params.n"
        again = (await post(node, ":batch", json={"items": items[:5]})).json()["items"]
        assert not any(item["created"] for item in again)
        runs = (await node.client.get("/api/v1/runs")).json()["items"]
        assert len(runs) == 3

    play(tmp_path, scenario)


def test_a_batch_is_bounded_and_whole_when_the_server_is_overloaded(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        one = {"workflow": "w"}
        full = await post(node, ":batch", json={"items": [one] * BATCH})
        assert sum(item["created"] for item in full.json()["items"]) == BATCH
        for items in ([one] * (BATCH + 1), []):
            problem_of(await post(node, ":batch", json={"items": items}), 422, "invalid-input")

        async def busy(*commands: Any) -> Any:
            raise Overloaded("4096 commands wait for the log", retry_after=2)

        shared = node.app.state.shared
        node.app.state.shared = type(shared)(
            type(shared.ports)(**{**vars_of(shared.ports), "propose": busy}),
            shared.wakes, shared.metrics,
        )  # fmt: skip
        for path, body in ((":batch", {"items": [one]}), ("", one)):
            answer = await post(node, path, json=body)
            problem_of(answer, 429, "overloaded")
            assert answer.headers["Retry-After"] == "2"

    play(tmp_path, scenario)


def vars_of(ports: Any) -> dict[str, Any]:
    return {name: getattr(ports, name) for name in ports.__dataclass_fields__}


def test_a_batch_of_too_many_tasks_is_refused_as_a_whole(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("wide", *(f"t{i}" for i in range(50))))
        items = [{"workflow": "wide"}] * BATCH
        answer = await post(node, ":batch", content=msgspec.json.encode({"items": items}))
        assert "too many tasks" in problem_of(answer, 422, "invalid-input")["detail"]
        assert (await node.client.get("/api/v1/runs")).json()["items"] == []

    play(tmp_path, scenario)


def test_a_node_alone_says_how_others_get_in(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        for role, told in (("worker", "DATA/worker-credential"), ("server", "start --init")):
            answer = await node.client.post("/api/v1/cluster/tokens", json={"role": role})
            assert told in problem_of(answer, 409, "conflict")["detail"]

    play(tmp_path, scenario)
