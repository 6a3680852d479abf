"""Runs over HTTP: started once, listed newest first, found by prefix, cancelled, deleted, read."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import msgspec
import pytest
from api_node import Node, an_id, json_value, play, problem_of, shell

from grampus.ids import content_hash, run_id_of_key
from grampus.model.run import AttemptState, Value

RAW = {"Accept": "application/octet-stream"}
PARAMS = [
    {"name": "day", "type": "date", "required": True},
    {"name": "rows", "type": "int", "default": 5},
    {"name": "on", "type": "str", "default": "{{ tick.date }}"},
]


def test_a_run_is_started_with_its_params_and_shown(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", "a", "b", params=PARAMS))
        body = {"workflow": "w", "params": {"day": "2026-11-21"}, "priority": 7}
        answer = await node.client.post("/api/v1/runs", json=body)
        assert answer.status_code == 202
        id = answer.json()["id"]
        assert answer.json() == {"id": id, "created": True}
        assert answer.headers["location"] == f"/api/v1/runs/{id}"
        run = (await node.client.get(answer.headers["location"])).json()
        assert (run["id"], run["workflow"], run["version"], run["priority"]) == (id, "w", 1, 7)
        assert run["params"] == {"day": "2026-11-21", "rows": 5, "on": run["tick"][:10]}
        assert (run["state"], run["tasks"], run["counts"]) == ("RUNNING", 2, {"READY": 2})
        assert run["ended"] is None
        assert run["created"].endswith("Z")
        tasks = (await node.client.get(f"/api/v1/runs/{id}/tasks")).json()["items"]
        assert [(t["name"], t["kind"], t["state"], t["attempts"]) for t in tasks] == [
            ("a", "shell", "READY", []),
            ("b", "shell", "READY", []),
        ]

    play(tmp_path, scenario)


def test_reads_wait_for_a_majority_unless_they_may_be_stale(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        paths = ("workflows", "workflows/w", "runs", "schedules", "cluster/snapshot")
        for path in paths:
            for query in ("", "?stale=true", "?stale=false"):
                answer = await node.client.get(f"/api/v1/{path}{query}")
                assert answer.status_code == 200, answer.text
        node.status.cut_off = True
        for path in paths:
            problem_of(await node.client.get(f"/api/v1/{path}"), 503, "no-quorum")
            assert (await node.client.get(f"/api/v1/{path}?stale=true")).status_code == 200
        node.status.cut_off = False
        answer = await node.client.get("/api/v1/runs?stole=true")
        assert (
            "did you mean `stale`"
            in problem_of(answer, 422, "invalid-input")["problems"][0]["message"]
        )

    play(tmp_path, scenario)


def test_every_wrong_param_is_told_and_no_run_is_made(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", params=PARAMS))
        body = {"workflow": "w", "params": {"rows": "many", "dya": "2026-11-21"}}
        answer = await node.client.post("/api/v1/runs", json=body)
        found = {
            p["field"]: p["message"] for p in problem_of(answer, 422, "invalid-input")["problems"]
        }
        assert set(found) == {"params.day", "params.rows", "params.dya"}
        assert "did you mean `day`" in found["params.dya"]
        assert (await node.client.get("/api/v1/runs")).json()["items"] == []
        nobody = await node.client.post("/api/v1/runs", json={"workflow": "x"})
        problem_of(nobody, 404, "not-found")
        old = await node.client.post("/api/v1/runs", json={"workflow": "w", "version": 3})
        assert "version 3" in problem_of(old, 404, "not-found")["detail"]

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "value", [2**63, -(2**70), 10**400, [[[]]] * 2, "\x00", 1e308, {"a": {"b": [None]}}]
)
def test_no_param_value_breaks_the_server(tmp_path: Path, value: object) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", params=[{"name": "x", "type": "json", "default": None}]))
        for _ in range(2):
            body = {"workflow": "w", "params": {"x": value}, "id": an_id(1)}
            answer = await node.client.post("/api/v1/runs", json=body)
            assert answer.status_code in (202, 422), answer.text

    play(tmp_path, scenario)


def test_deeply_nested_params_are_refused_not_fatal(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", params=[{"name": "x", "type": "json", "default": None}]))
        for depth in (60, 400, 900, 2000, 300_000):
            deep = "[" * depth + "]" * depth
            content = f'{{"workflow": "w", "id": "{an_id(1)}", "params": {{"x": {deep}}}}}'
            answer = await node.client.post("/api/v1/runs", content=content)
            assert answer.status_code in (400, 422), (depth, answer.text)
        await node.start("w", id=an_id(1))
        for depth in (400, 900, 2000):
            deep = "[" * depth + "]" * depth
            content = f'{{"workflow": "w", "id": "{an_id(1)}", "params": {{"x": {deep}}}}}'
            answer = await node.client.post("/api/v1/runs", content=content)
            assert answer.status_code in (400, 409, 422), (depth, answer.text)

    play(tmp_path, scenario)


def test_the_same_request_is_the_same_run_and_another_is_a_conflict(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", params=[{"name": "x", "type": "int", "default": 1}]))
        body = {"workflow": "w", "id": an_id(5), "params": {"x": 2}}
        first = await node.client.post("/api/v1/runs", json=body)
        again = await node.client.post("/api/v1/runs", json=body)
        assert first.json() == {"id": an_id(5), "created": True}
        assert (again.status_code, again.json()) == (202, {"id": an_id(5), "created": False})
        for other in ({"params": {"x": 3}}, {"priority": 1}, {"version": 1}, {"params": {}}):
            answer = await node.client.post("/api/v1/runs", json={**body, **other})
            problem_of(answer, 409, "conflict")
        assert len((await node.client.get("/api/v1/runs")).json()["items"]) == 1

    play(tmp_path, scenario)


def test_a_key_stays_the_same_run_when_the_workflow_changes_or_goes(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        key = {"Idempotency-Key": "nightly 2026-11-21"}
        body = {"workflow": "w"}
        first = await node.client.post("/api/v1/runs", json=body, headers=key)
        id = str(run_id_of_key("nightly 2026-11-21"))
        assert first.json() == {"id": id, "created": True}
        await node.apply(shell("w", params=[{"name": "must", "required": True}]))
        again = await node.client.post("/api/v1/runs", json=body, headers=key)
        assert again.json() == {"id": id, "created": False}
        await node.client.post(f"/api/v1/runs/{id}/cancel")
        await node.client.delete("/api/v1/workflows/w")
        again = await node.client.post("/api/v1/runs", json=body, headers=key)
        assert (again.status_code, again.json()) == (202, {"id": id, "created": False})
        other = await node.client.post("/api/v1/runs", json={"workflow": "v"}, headers=key)
        problem_of(other, 409, "conflict")

    play(tmp_path, scenario)


def test_many_at_once_with_one_key_make_one_run(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        ask = [
            node.client.post(
                "/api/v1/runs", json={"workflow": "w"}, headers={"Idempotency-Key": "k"}
            )
            for _ in range(20)
        ]
        answers = await asyncio.gather(*ask)
        assert {a.status_code for a in answers} == {202}
        assert sum(a.json()["created"] for a in answers) == 1
        assert len({a.json()["id"] for a in answers}) == 1

    play(tmp_path, scenario)


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_has_1_to_200_characters(tmp_path: Path, key: str) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        headers = {"Idempotency-Key": key}
        answer = await node.client.post("/api/v1/runs", json={"workflow": "w"}, headers=headers)
        problem_of(answer, 422, "invalid-input")
        body = {"workflow": "w", "id": an_id(1)}
        both = await node.client.post("/api/v1/runs", json=body, headers={"Idempotency-Key": "k"})
        problem_of(both, 422, "invalid-input")

    play(tmp_path, scenario)


def test_a_run_is_found_by_a_prefix_that_is_its_own(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        nothing = await node.client.get("/api/v1/runs/last")
        assert "no run yet" in problem_of(nothing, 404, "not-found")["detail"]
        for id in ("abcdefghijkl", "abcdxxxxxxxx", "zzzzzzzzzzzz"):
            await node.start("w", id=id)
        got = await node.client.get("/api/v1/runs/abcde")
        assert got.json()["id"] == "abcdefghijkl"
        assert (await node.client.get("/api/v1/runs/last")).json()["id"] == "zzzzzzzzzzzz"
        both = problem_of(await node.client.get("/api/v1/runs/abcd"), 409, "ambiguous-id")
        assert "abcdefghijkl" in both["detail"]
        assert "abcdxxxxxxxx" in both["detail"]
        for wrong in ("abc", "abcf", "ABCDE", "abcdefghijklm", "abcd%", "abcd%0A", "%F0%9F%90%8B"):
            problem_of(await node.client.get(f"/api/v1/runs/{wrong}"), 404, "not-found")
        cancelled = await node.client.post("/api/v1/runs/zzzz/cancel")
        assert cancelled.json() == {"id": "zzzzzzzzzzzz", "state": "CANCELLED"}

    play(tmp_path, scenario)


def test_pages_of_runs_neither_repeat_nor_miss_while_new_ones_come(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        await node.apply(shell("v"))
        made = [await node.start("w") for _ in range(5)]
        first = (await node.client.get("/api/v1/runs?limit=2")).json()
        made.append(await node.start("v"))
        second = (await node.client.get(f"/api/v1/runs?limit=2&cursor={first['next']}")).json()
        third = (await node.client.get(f"/api/v1/runs?limit=2&cursor={second['next']}")).json()
        seen = [run["id"] for page in (first, second, third) for run in page["items"]]
        assert seen == made[4::-1]
        assert third["next"] is None
        only = (await node.client.get("/api/v1/runs?workflow=v&state=RUNNING")).json()
        assert [run["id"] for run in only["items"]] == made[5:]
        assert (await node.client.get("/api/v1/runs?state=FAILED")).json()["items"] == []

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "state=DONE", "cursor=%21", "cursor=bg", "cursor=cw",
     "cursor=c8Kz", "cursor=", "workflw=w"],
)  # fmt: skip
def test_a_wrong_query_is_refused_not_ignored(tmp_path: Path, query: str) -> None:
    async def scenario(node: Node) -> None:
        answer = await node.client.get(f"/api/v1/runs?{query}")
        (found,) = problem_of(answer, 422, "invalid-input")["problems"]
        assert found["field"] == f"query.{query.partition('=')[0]}"

    play(tmp_path, scenario)


def test_a_run_is_cancelled_once_and_deleted_only_when_final(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        n = await node.begin(run)
        problem_of(await node.client.delete(f"/api/v1/runs/{run}"), 409, "conflict")
        for _ in range(2):
            answer = await node.client.post(f"/api/v1/runs/{run}/cancel")
            assert (answer.status_code, answer.json()["state"]) == (202, "CANCELLING")
        await node.finish(n, AttemptState.CANCELLED)
        assert (await node.client.get(f"/api/v1/runs/{run}")).json()["state"] == "CANCELLED"
        prefix = await node.client.delete(f"/api/v1/runs/{run[:6]}")
        problem_of(prefix, 422, "invalid-input")
        gone = await node.client.delete(f"/api/v1/runs/{run}")
        assert (gone.status_code, gone.content) == (204, b"")
        problem_of(await node.client.delete(f"/api/v1/runs/{run}"), 404, "not-found")
        problem_of(await node.client.get(f"/api/v1/runs/{run}"), 404, "not-found")
        problem_of(await node.client.get(f"/api/v1/runs/{run}/tasks"), 404, "not-found")
        problem_of(await node.client.post(f"/api/v1/runs/{run}/cancel"), 404, "not-found")

    play(tmp_path, scenario)


def test_a_finished_run_is_not_cancelled(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        await node.finish(await node.begin(run))
        answer = await node.client.post(f"/api/v1/runs/{run}/cancel")
        assert "SUCCEEDED" in problem_of(answer, 409, "conflict")["detail"]

    play(tmp_path, scenario)


def test_results_are_shown_when_they_are_json_and_given_as_bytes_always(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", "small", "large", "huge", "pickled", "nothing", "waiting"))
        await node.staff()
        run = await node.start("w")
        large = msgspec.json.encode(list(range(20_000)))
        huge = msgspec.json.encode("x" * (2 << 20))
        pickled = pickle.dumps({1, 2})
        outputs = [
            json_value({"rows": 3}),
            Value("json", None, node.blobs.put(large), len(large)),
            Value("json", None, node.blobs.put(huge), len(huge)),
            Value("pickle", pickled, None, len(pickled)),
            None,
        ]
        for index, output in enumerate(outputs):
            await node.finish(await node.begin(run, index), output=output)

        async def result(task: str, **headers: str):  # type: ignore[no-untyped-def]
            return await node.client.get(f"/api/v1/runs/{run}/tasks/{task}/result", headers=headers)

        assert (await result("small")).json() == {
            "task": "small", "state": "SUCCEEDED", "encoding": "json", "value": {"rows": 3},
            "inline": True, "size": 10,
        }  # fmt: skip
        assert (await result("large")).json()["value"] == list(range(20_000))
        shown = (await result("huge")).json()
        assert (shown["value"], shown["inline"], shown["size"]) == (None, False, len(huge))
        shown = (await result("pickled")).json()
        assert (shown["encoding"], shown["value"], shown["inline"]) == ("pickle", None, False)
        shown = (await result("nothing")).json()
        assert (shown["encoding"], shown["value"], shown["inline"]) == ("none", None, True)
        assert (await result("waiting")).json()["state"] == "READY"
        for task, data in (("small", b'{"rows":3}'), ("huge", huge), ("pickled", pickled)):
            raw = await result(task, **RAW)
            assert raw.content == data
            assert raw.headers["content-type"] == "application/octet-stream"
            assert raw.headers["grampus-encoding"] == ("pickle" if task == "pickled" else "json")
        assert (await result("nothing", **RAW)).status_code == 204
        problem_of(await result("nobody"), 404, "not-found")
        node.blobs.remove(content_hash(huge), before=float("inf"))
        problem_of(await result("huge", **RAW), 404, "not-found")

    play(tmp_path, scenario)
