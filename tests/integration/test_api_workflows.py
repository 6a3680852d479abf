"""Workflows and bundles over HTTP: what is stored, what is refused, and how that is told."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from api_node import Node, play, problem_of, shell

from grampus.model.workflow import read_workflow


def test_a_definition_is_stored_once_and_read_back_as_it_was(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        definition = shell("hello", "a", "b", description="greets")
        assert await node.apply(definition) == {
            "name": "hello", "version": 1, "created": True, "note": "",
        }  # fmt: skip
        assert (await node.apply(definition))["created"] is False
        assert (await node.apply(shell("hello", "a")))["version"] == 2
        newest = (await node.client.get("/api/v1/workflows/hello")).json()
        assert (newest["version"], len(newest["definition"]["tasks"])) == (2, 1)
        first = (await node.client.get("/api/v1/workflows/hello?version=1")).json()
        given = msgspec.json.encode(definition)
        shown = msgspec.json.encode(first["definition"])
        assert read_workflow(shown) == read_workflow(given)
        assert first["applied_at"].endswith("Z")
        assert first["paused"] is False
        problem_of(await node.client.get("/api/v1/workflows/hello?version=9"), 404, "not-found")
        problem_of(await node.client.get("/api/v1/workflows/nobody"), 404, "not-found")

    play(tmp_path, scenario)


def test_mentioned_tasks_become_upstream_whatever_the_client_forgot(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        definition = shell("chain", "a", "b")
        definition["tasks"][1]["action"]["command"] = "echo {{ tasks.a.output }}"
        await node.apply(definition)
        shown = (await node.client.get("/api/v1/workflows/chain")).json()["definition"]
        assert shown["tasks"][1]["after"] == ["a"]

    play(tmp_path, scenario)


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_stored(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        definition = shell("bad name!", "a", "a")
        definition["tasks"][0]["after"] = ["nobody"]
        answer = await node.client.post("/api/v1/workflows", json={"definition": definition})
        found = problem_of(answer, 422, "invalid-input")["problems"]
        assert {"workflow", "tasks.a", "tasks.a.after"} <= {p["field"] for p in found}
        assert (await node.client.get("/api/v1/workflows")).json() == {"items": [], "next": None}

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"definitoin": {}}, "definitoin", "did you mean `definition`"),
        ({}, "definition", "required"),
        ({"definition": []}, "definition", "dictionary"),
        ([], "", "dictionary"),
        (
            {"definition": {"name": "x", "tasks": [], "descripton": ""}},
            "descripton",
            "did you mean `description`",
        ),
        (
            {"definition": {"name": "x", "tasks": [{**shell("x", "a")["tasks"][0], "retries": 2}]}},
            "tasks.a.retries",
            "no field `retries`",
        ),
        ({"definition": {"name": 5, "tasks": []}}, "name", "expected `str`"),
        ({"definition": {"name": "x", "tasks": [{"name": "a", "action": {"type": "exec"}}]}},
         "tasks.a.action.type", "exec"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_was_meant(
    tmp_path: Path, body: object, field: str, words: str
) -> None:
    async def scenario(node: Node) -> None:
        answer = await node.client.post("/api/v1/workflows", json=body)
        found = problem_of(answer, 422, "invalid-input")["problems"]
        assert words in {p.get("field", ""): p["message"] for p in found}[field]

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"definition": NaN}', b"[" * 100_000, b'{"definition": "\\ud800"}'],
)
def test_what_is_no_json_is_malformed(tmp_path: Path, content: bytes) -> None:
    async def scenario(node: Node) -> None:
        problem_of(await node.client.post("/api/v1/workflows", content=content), 400, "malformed")
        problem_of(await node.client.post("/api/v1/runs", content=content), 400, "malformed")

    play(tmp_path, scenario)


def test_another_content_type_is_refused(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        answer = await node.client.post(
            "/api/v1/runs", content=b"a=b", headers={"Content-Type": "text/plain"}
        )
        problem_of(answer, 415, "unsupported-media-type")

    play(tmp_path, scenario)


async def endless(size: int) -> AsyncIterator[bytes]:
    """A body without Content-Length."""
    for _ in range(size // 65536 + 1):
        yield b" " * 65536


@pytest.mark.parametrize(("path", "limit"), [("workflows", 8 << 20), ("runs", 1 << 20)])
def test_a_huge_body_is_cut_off_whether_or_not_it_says_its_size(
    tmp_path: Path, path: str, limit: int
) -> None:
    async def scenario(node: Node) -> None:
        told = await node.client.post(f"/api/v1/{path}", content=b" " * (limit + 1))
        problem_of(told, 413, "too-large")
        untold = await node.client.post(f"/api/v1/{path}", content=endless(limit))
        problem_of(untold, 413, "too-large")

    play(tmp_path, scenario)


def test_a_definition_that_fits_no_command_is_told_so(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        definition = shell("wide", *[f"t{i}" for i in range(2000)])
        for task in definition["tasks"]:
            task["description"] = secrets.token_hex(200)
        answer = await node.client.post("/api/v1/workflows", json={"definition": definition})
        assert "at most" in problem_of(answer, 413, "too-large")["detail"]

    play(tmp_path, scenario)


def test_workflows_are_paged_by_name(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        for name in ("b", "a", "c", "e", "d"):
            await node.apply(shell(name))
        seen: list[str] = []
        query: dict[str, str | int] = {"limit": 2}
        while True:
            page = (await node.client.get("/api/v1/workflows", params=query)).json()
            seen += [item["name"] for item in page["items"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert seen == ["a", "b", "c", "d", "e"]

    play(tmp_path, scenario)


def test_a_paused_workflow_queues_its_runs_until_it_is_resumed(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        paused = await node.client.post("/api/v1/workflows/w/pause")
        assert paused.json() == {"name": "w", "paused": True}
        run = await node.start("w")
        assert (await node.client.get(f"/api/v1/runs/{run}")).json()["state"] == "QUEUED"
        resumed = await node.client.post("/api/v1/workflows/w/resume")
        assert resumed.json() == {"name": "w", "paused": False}
        assert (await node.client.get(f"/api/v1/runs/{run}")).json()["state"] == "RUNNING"
        problem_of(await node.client.post("/api/v1/workflows/x/pause"), 404, "not-found")

    play(tmp_path, scenario)


def test_a_workflow_with_active_runs_is_not_deleted(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        problem_of(await node.client.delete("/api/v1/workflows/w"), 409, "conflict")
        await node.client.post(f"/api/v1/runs/{run}/cancel")
        deleted = await node.client.delete("/api/v1/workflows/w")
        assert (deleted.status_code, deleted.content) == (204, b"")
        problem_of(await node.client.delete("/api/v1/workflows/w"), 404, "not-found")

    play(tmp_path, scenario)


def test_a_bundle_is_stored_under_its_hash_and_only_then_may_be_named(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        data = b"bundle" * 100_000
        hash = hashlib.sha256(data).hexdigest()
        definition = shell("w", bundle=hash)
        refused = await node.client.post("/api/v1/workflows", json={"definition": definition})
        assert hash in problem_of(refused, 409, "missing-bundle")["detail"]
        assert (await node.client.head(f"/api/v1/bundles/{hash}")).status_code == 404
        for _ in range(2):
            stored = await node.client.put(f"/api/v1/bundles/{hash}", content=data)
            assert (stored.status_code, stored.content) == (204, b"")
        assert (await node.client.head(f"/api/v1/bundles/{hash}")).status_code == 200
        assert node.blobs.read(hash, 0, 1 << 20) == data
        assert (await node.apply(definition))["version"] == 1

    play(tmp_path, scenario)


def test_a_bundle_that_is_not_what_it_says_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        hash = hashlib.sha256(b"right").hexdigest()
        wrong = await node.client.put(f"/api/v1/bundles/{hash}", content=b"wrong")
        problem_of(wrong, 422, "invalid-input")
        large = await node.client.put(f"/api/v1/bundles/{hash}", content=endless(16 << 20))
        problem_of(large, 413, "too-large")
        assert (await node.client.head(f"/api/v1/bundles/{hash}")).status_code == 404
        assert [p for p in (node.folder / "blobs").rglob("*") if p.is_file()] == []
        problem_of(await node.client.put("/api/v1/bundles/ABC", content=b""), 422, "invalid-input")
        problem_of(await node.client.put("/api/v1/bundles/..%2fx", content=b""), 404, "not-found")

    play(tmp_path, scenario)
