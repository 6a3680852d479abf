"""Who gets in, who is turned away, and that a defect tells nothing of the inside."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from api_node import TOKEN, TOKEN_FILE, Node, play, play_live, problem_of, shell

from grampus.api import auth
from grampus.api.auth import hosts_of
from grampus.api.ports import WorkerLoad
from grampus.consensus.port import Stopped
from grampus.errors import GrampusError, OutcomeUnknown, Overloaded

GUARDED = ["/api/v1/runs", "/api/v1/workers", "/metrics", "/nothing", "/api/v1/nothing-here"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x",
     f"Bearer {TOKEN[:-1]}", "Bearer \xe9\xff"],
)  # fmt: skip
def test_without_the_token_nothing_is_told_but_where_it_is(
    tmp_path: Path, authorization: str | None
) -> None:
    async def scenario(node: Node) -> None:
        del node.client.headers["Authorization"]
        headers = (
            {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
        )
        for path in GUARDED:
            answer = await node.client.get(path, headers=headers)
            told = problem_of(answer, 401, "unauthorized")
            assert TOKEN_FILE in told["detail"]
            assert TOKEN not in answer.text
            assert answer.headers["www-authenticate"] == "Bearer"

    play(tmp_path, scenario)


def test_a_wrong_token_changes_nothing(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        body = {"definition": shell("w")}
        wrong = {"Authorization": "Bearer nope"}
        answer = await node.client.post("/api/v1/workflows", json=body, headers=wrong)
        told = problem_of(answer, 401, "unauthorized")
        assert told["detail"].startswith("that is not the token of this server; ")
        assert (await node.client.get("/api/v1/workflows")).json()["items"] == []

    play(tmp_path, scenario)


def test_health_and_the_document_are_open(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        del node.client.headers["Authorization"]
        begun = await node.client.get("/")
        assert begun.status_code == 200
        assert "/api/v1/openapi.json" in begun.text
        assert (await node.client.get("/healthz")).json() == {"status": "ok"}
        assert (await node.client.get("/readyz")).json() == {"status": "ok", "alarms": []}
        assert (await node.client.get("/api/v1/openapi.json")).json()["openapi"].startswith("3.")
        node.status.reason = "the ledger is being opened"
        waiting = await node.client.get("/readyz")
        assert "ledger" in problem_of(waiting, 503, "not-ready")["detail"]
        assert (await node.client.get("/healthz")).status_code == 200

    play(tmp_path, scenario)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8470", "127.0.0.2", ""])
def test_a_loopback_server_answers_to_no_foreign_name(tmp_path: Path, host: str) -> None:
    async def scenario(node: Node) -> None:
        for path in ("/healthz", "/api/v1/runs"):
            answer = await node.client.get(path, headers={"Host": host})
            problem_of(answer, 421, "misdirected")

    play(tmp_path, scenario)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8470", "127.0.0.1:1", "[::1]:8470"])
def test_a_loopback_server_answers_to_the_names_of_its_machine(tmp_path: Path, host: str) -> None:
    async def scenario(node: Node) -> None:
        assert (await node.client.get("/api/v1/runs", headers={"Host": host})).status_code == 200

    play(tmp_path, scenario)


def test_only_loopback_is_strict_about_names() -> None:
    assert hosts_of("0.0.0.0") is None
    assert hosts_of("192.0.2.7") is None
    assert hosts_of("node1") is None
    assert hosts_of("127.0.0.3") == {"localhost", "127.0.0.1", "::1", "127.0.0.3"}
    assert hosts_of("[::1]") == {"localhost", "127.0.0.1", "::1"}


def test_other_origins_are_given_no_permission(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        asked = await node.client.request("OPTIONS", "/api/v1/runs", headers=headers)
        assert asked.status_code == 405
        got = await node.client.get("/api/v1/runs", headers=headers)
        for answer in (asked, got):
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"

    play(tmp_path, scenario)


def test_head_is_get_without_its_body(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        for path in ("/readyz", "/metrics", "/api/v1/runs", f"/api/v1/runs/{run}", "/nothing"):
            head, got = await client.head(path), await client.get(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
            assert int(head.headers["content-length"]) > 0
        # A stream that would go on for long ends with its head, and so does its place.
        head = await client.head(f"/api/v1/runs/{run}/events")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
        assert (await client.head("/api/v1/runs:batch")).headers["allow"] == "POST"
        for _ in range(500):
            if node.wakes.streams == 0:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the stream is still there")

    play_live(tmp_path, scenario)


def test_a_lone_node_is_a_member_of_the_version_that_its_ledger_has(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        told = (await node.client.get("/api/v1/cluster")).json()
        assert [each["apply_version"] for each in told["members"]] == [told["apply_version"]] == [1]

    play(tmp_path, scenario)


def test_what_is_not_there_is_a_problem_document_too(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        problem_of(await node.client.get("/api/v1/nothing-here"), 404, "not-found")
        problem_of(await node.client.get("/api/v1/runs/"), 404, "not-found")
        answer = await node.client.put("/api/v1/runs")
        problem_of(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD, POST"

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Overloaded("4096 commands are in flight", retry_after=3), 429, "overloaded"),
        (Stopped("the node stops"), 503, "stopped"),
        (OutcomeUnknown("the disk is gone"), 504, "unknown-outcome"),
        (GrampusError("strange"), 500, "internal"),
        (RuntimeError("secret path /root/.ssh"), 500, "internal"),
    ],
)
def test_a_proposal_that_fails_is_told_by_what_the_client_may_do(
    tmp_path: Path, error: Exception, status: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))

        async def fails(commands: object) -> list[object]:
            raise error

        monkeypatch.setattr(node.proposer._replica, "propose", fails)
        answer = await node.client.post("/api/v1/runs", json={"workflow": "w"})
        told = problem_of(answer, status, kind)
        assert "secret" not in answer.text
        assert answer.headers.get("retry-after") == ("3" if status == 429 else None)
        assert told["detail"]

    play(tmp_path, scenario)


def test_too_many_requests_at_once_are_asked_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node) -> None:
        monkeypatch.setattr(auth, "MOST_REQUESTS", 0)
        answer = await node.client.get("/api/v1/runs")
        problem_of(answer, 429, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert (await node.client.get("/healthz")).status_code == 200

    play(tmp_path, scenario)


def test_workers_are_listed_with_what_is_known_of_them(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        assert (await node.client.get("/api/v1/workers")).json() == {"items": []}
        await node.staff()
        (worker,) = (await node.client.get("/api/v1/workers")).json()["items"]
        assert (worker["name"], worker["slots"], worker["state"]) == ("w1", 8, "LIVE")
        assert (worker["connected"], worker["cpu"], worker["memory"]) == (False, None, None)
        node.status.loads = {node.session: WorkerLoad(42, 1 << 30)}
        (worker,) = (await node.client.get("/api/v1/workers")).json()["items"]
        assert (worker["connected"], worker["cpu"], worker["memory"]) == (True, 42, 1 << 30)

    play(tmp_path, scenario)


def test_metrics_count_what_the_ledger_has(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w", "a", "b"))
        await node.start("w")
        answer: httpx.Response = await node.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        lines = answer.text.splitlines()
        assert 'grampus_runs{state="RUNNING"} 1.0' in lines
        assert 'grampus_runs{state="FAILED"} 0.0' in lines
        assert 'grampus_tasks{state="READY"} 2.0' in lines
        assert "grampus_ready 1.0" in lines
        assert f"grampus_applied_index {float(node.status.applied_index())}" in lines
        assert any(line.startswith("grampus_event_loop_stall_seconds_bucket") for line in lines)

    play(tmp_path, scenario)
