"""The metadata center over HTTP: keys, conditions, lists, transactions, problems."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_node import Node, play, play_live, problem_of

from grampus.cluster.commands import Compact, encode_command

KV = "/api/v1/kv"
A = f"{KV}/%2Fa"


def in_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def test_a_key_is_written_read_and_deleted(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        written = await node.client.put(A, content=b"\0one")
        assert (written.status_code, written.json()) == (200, {"revision": 1})
        assert written.headers["etag"] == '"1"'
        assert written.headers["grampus-seen"] == "h1:1"
        answer = await node.client.get(A)
        assert answer.json() == {
            "key": "/a", "value": in_base64(b"\0one"), "create_revision": 1, "mod_revision": 1,
            "version": 1, "session": 0,
        }  # fmt: skip
        raw = await node.client.get(A, headers={"Accept": "application/octet-stream"})
        assert (raw.content, raw.headers["etag"]) == (b"\0one", '"1"')
        assert raw.headers["content-type"] == "application/octet-stream"
        gone = await node.client.delete(A)
        assert gone.json() == {"revision": 2, "deleted": 1}
        problem_of(await node.client.get(A), 404, "not-found")
        problem_of(await node.client.delete(A), 404, "not-found")

    play(tmp_path, scenario)


def test_a_key_is_the_rest_of_the_path_byte_for_byte(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        spellings = {"/%2Fa": "/a", "//a": "/a", "/a/b": "a/b", "/%2E%2E": "..", "/%C3%A9%25": "é%"}
        for path, key in spellings.items():
            await node.client.put(KV + path, content=key.encode())
            answer = await node.client.get(KV + path)
            assert (answer.json()["key"], answer.json()["value"]) == (key, in_base64(key.encode()))
        problem_of(await node.client.put(f"{KV}/%FF"), 422, "invalid-input")
        problem_of(await node.client.put(f"{KV}/"), 422, "invalid-input")
        problem_of(await node.client.put(f"{KV}/{'k' * 513}"), 413, "too-large")
        told = problem_of(await node.client.put(A, content=b"x" * 65537), 413, "too-large")
        assert told["detail"] == "a value is at most 65536 bytes"

    play(tmp_path, scenario)


def test_conditions_are_those_of_http(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        put, delete = node.client.put, node.client.delete
        new, old = {"If-None-Match": "*"}, {"If-Match": '"1"'}
        failed = problem_of(await put(A, content=b"x", headers=old), 412, "precondition-failed")
        assert failed["revision"] == 0
        assert "current" not in failed
        assert (await put(A, content=b"1", headers=new)).json() == {"revision": 1}
        failed = problem_of(await put(A, content=b"x", headers=new), 412, "precondition-failed")
        assert failed["current"]["value"] == in_base64(b"1")
        assert (await put(A, content=b"2", headers=old)).json() == {"revision": 2}
        failed = problem_of(await delete(A, headers=old), 412, "precondition-failed")
        assert (failed["revision"], failed["current"]["mod_revision"]) == (2, 2)
        assert (await delete(A, headers={"If-Match": "*"})).json() == {"revision": 3, "deleted": 1}
        problem_of(await delete(A, headers={"If-Match": "*"}), 412, "precondition-failed")
        for wrong in ({"If-Match": "1"}, {"If-Match": 'W/"1"'}, {"If-None-Match": '"1"'}):
            problem_of(await put(A, content=b"", headers=wrong), 422, "invalid-input")

    play(tmp_path, scenario)


def test_keys_are_listed_page_by_page(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        for n in range(5):
            await node.client.put(f"{KV}/%2Fk%2F{n}", content=b"")
        await node.client.put(f"{KV}/%2Fother", content=b"")
        names: list[str] = []
        after = ""
        while after is not None:
            query = {"prefix": "/k/", "limit": 2, "after": after}
            page = (await node.client.get(KV, params=query)).json()
            assert page["revision"] == 6
            names += [item["key"] for item in page["items"]]
            after = page["next"]
        assert names == [f"/k/{n}" for n in range(5)]
        everything = (await node.client.get(KV)).json()
        assert (len(everything["items"]), everything["next"]) == (6, None)

    play(tmp_path, scenario)


def test_an_answer_is_not_older_than_what_was_seen(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.client.put(A, content=b"")
        for good in ("h1:1", "h1:0"):
            assert (await node.client.get(A, headers={"Grampus-Seen": good})).status_code == 200
        lagging = await node.client.get(A, headers={"Grampus-Seen": "h1:2"})
        problem_of(lagging, 503, "lagging")
        elsewhere = await node.client.get(A, headers={"Grampus-Seen": "h0:1"})
        problem_of(elsewhere, 409, "wrong-history")
        assert elsewhere.headers["Grampus-Seen"] == "h1:1"
        problem_of(await node.client.get(A, headers={"Grampus-Seen": "x"}), 422, "invalid-input")

    play(tmp_path, scenario)


def test_a_transaction_compares_and_changes(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.client.put(A, content=b"1")
        body: dict[str, Any] = {
            "compare": [{"key": "/a", "value": in_base64(b"1")}, {"key": "/b", "version": 0}],
            "then": [
                {"put": {"key": "/b", "value": in_base64(b"2")}},
                {"delete": {"key": "/a"}},
                {"get": {"prefix": "/"}},
            ],
            "else": [{"get": {"key": "/b"}}],
        }
        done = (await node.client.post(f"{KV}:txn", json=body)).json()
        assert (done["revision"], done["succeeded"]) == (2, True)
        put, delete, get = done["results"]
        assert (put, delete) == ({"type": "put"}, {"type": "delete", "deleted": 1})
        assert ([item["key"] for item in get["items"]], get["more"]) == (["/b"], False)
        again = (await node.client.post(f"{KV}:txn", json=body)).json()
        assert (again["revision"], again["succeeded"]) == (2, False)
        assert again["results"][0]["items"][0]["value"] == in_base64(b"2")

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"compare": [{"key": "/a"}]},
        {"compare": [{"key": "/a", "version": 1, "session": 0}]},
        {"compare": [{"key": "/a", "value": "not base64"}]},
        {"then": [{"put": {"key": "/a", "value": ""}, "get": {"key": "/a"}}]},
        {"then": [{"delete": {"key": "/a", "prefix": "/"}}]},
        {"then": [{"delete": {"prefix": ""}}]},
        {"then": [{"put": {"key": "/a", "value": ""}}, {"put": {"key": "/a", "value": ""}}]},
        {"then": [{"put": {"key": "/a", "value": "", "lease": 1}}]},
        {"otherwise": []},
    ],
)
def test_what_no_transaction_can_mean_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async def scenario(node: Node) -> None:
        problem_of(await node.client.post(f"{KV}:txn", json=body), 422, "invalid-input")

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ({"orelse": []}, "compare, then, else, session"),
        ({"then": [{"putt": {}}]}, "put, delete, get"),
        ({"then": [{"put": {"key": "/a", "value": "", "lease": 1}}]}, "key, value, ephemeral"),
    ],
)
def test_an_unknown_field_is_told_with_those_of_its_place(
    tmp_path: Path, body: dict[str, Any], allowed: str
) -> None:
    async def scenario(node: Node) -> None:
        answer = await node.client.post(f"{KV}:txn", json=body)
        (told,) = problem_of(answer, 422, "invalid-input")["problems"]
        assert told["allowed"] == allowed

    play(tmp_path, scenario)


# watch


@asynccontextmanager
async def watching(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: Any
) -> AsyncIterator[AsyncIterator[tuple[str, str, Any]]]:
    """(event, id, data) as they come; data is None when the id only moves on."""
    params = {"watch": "true", "prefix": "/w/", **query}
    async with client.stream("GET", KV, params=params, headers=headers or {}) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events_of(answer)


async def events_of(answer: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    event, id, data = "", "", None
    async for line in answer.aiter_lines():
        if not line:
            yield event, id, data
            event, id, data = "", "", None
        name, _, value = line.partition(": ")
        match name:
            case "event":
                event = value
            case "id":
                id = value
            case "data":
                data = json.loads(value)


def test_a_watch_tells_one_event_a_revision_and_resumes(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await client.put(f"{KV}/%2Fw%2F1", content=b"one")
        async with watching(client) as events:
            assert await anext(events) == ("", "1", None)
            body = {"then": [
                {"put": {"key": "/w/2", "value": ""}}, {"delete": {"key": "/w/1"}},
                {"put": {"key": "/x", "value": ""}},
            ]}  # fmt: skip
            await client.post(f"{KV}:txn", json=body)
            event, id, data = await anext(events)
        assert (event, id) == ("change", "2")
        put = {"type": "put", "key": "/w/2", "value": "", "create_revision": 2, "version": 1,
               "session": 0}  # fmt: skip
        assert data == {"revision": 2, "changes": [put, {"type": "delete", "key": "/w/1"}]}
        await client.put(f"{KV}/%2Fw%2F3", content=b"")
        async with watching(client, {"Last-Event-ID": "1"}) as events:
            assert [(await anext(events))[1] for _ in range(3)] == ["1", "2", "3"]
        async with watching(client, **{"from": 3}) as events:
            assert [(await anext(events))[1] for _ in range(2)] == ["2", "3"]
        for _ in range(500):
            if not node.app.state.shared.ports.keys.feed.watchers:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a watch whose client has left goes on")

    play_live(tmp_path, scenario)


def test_a_watch_from_a_forgotten_revision_is_told_so(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        keys = node.app.state.shared.ports.keys
        for _ in range(3):
            await node.client.put(A, content=b"")
        await keys._replica.propose([encode_command(Compact(2**60, 2**60))])
        query = {"watch": "true", "from": 2}
        told = problem_of(await node.client.get(KV, params=query), 410, "compacted")
        assert told["first"] == 4

    play(tmp_path, scenario)


def test_watches_end_when_the_server_stops(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        async with watching(client) as events:
            await anext(events)
            node.app.state.shared.ports.keys.close()
            with pytest.raises(StopAsyncIteration):
                await anext(events)

    play_live(tmp_path, scenario)
