"""Events and logs as they happen, over real sockets: resumed, woken, cut, and ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_node import Node, play, play_live, problem_of, shell

from grampus.api import logs, stream, wakes
from grampus.errors import NotFound, Overloaded, ProtocolError, ServerUnreachable
from grampus.model.run import AttemptState
from grampus.runs.commands import CancelRun

SSE = {"Accept": "text/event-stream"}


@asynccontextmanager
async def events(
    client: httpx.AsyncClient, path: str, **headers: str
) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """The server-sent events of a stream; a comment is {"": text}."""

    async def read(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(":")
                event[name] = value.strip()
            elif event:
                yield event
                event = {}

    async with client.stream("GET", path, headers={**SSE, **headers}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield read(answer)


async def lines(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """All NDJSON of a stream that ends."""
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) async for line in answer.aiter_lines() if line]


def told(pieces: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """The text of each (task, stream); checks that no byte is missing or twice."""
    texts: dict[tuple[str, str], str] = {}
    ends: dict[tuple[str, str, int], int] = {}
    for piece in pieces:
        key = (piece["task"], piece["stream"])
        exact = (*key, piece["attempt"])
        assert piece["offset"] == ends.get(exact, 0) + piece["skipped"]
        ends[exact] = piece["next"]
        texts[key] = texts.get(key, "") + piece["text"]
    return texts


async def streams(node: Node, count: int) -> None:
    """Waits until so many streams are open."""
    for _ in range(500):
        if node.wakes.streams == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{node.wakes.streams} streams are open, not {count}")


def test_events_come_as_they_are_committed_and_end_with_the_run(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/events") as stream:
            seen = [await anext(stream) for _ in range(3)]
            assert [e["event"] for e in seen] == ["run.submitted", "run.started", "task.ready"]
            n = await node.begin(run)
            started = await anext(stream)
            fact = json.loads(started["data"])
            assert (fact["type"], fact["n"], fact["run"]) == ("attempt.started", n, run)
            assert fact["revision"] == int(started["id"])
            assert fact["at"].endswith("Z")
            await node.finish(n)
            rest = [e["event"] async for e in stream]
            assert rest == ["attempt.finished", "task.finished", "run.finished"]
        await streams(node, 0)

    play_live(tmp_path, scenario)


def test_a_stream_goes_on_where_it_was_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 2)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w", "a", "b", "c"))
        await node.staff()
        run = await node.start("w")
        path = f"/api/v1/runs/{run}/events"
        for index in range(3):
            await node.finish(await node.begin(run, index))
        async with events(client, path) as all_events:
            whole = [e async for e in all_events]
        assert whole[-1]["event"] == "run.finished"
        ids = [int(e["id"]) for e in whole]
        assert ids == sorted(set(ids))
        for at in range(len(whole)):
            async with events(client, path, **{"Last-Event-ID": whole[at]["id"]}) as rest:
                assert [e async for e in rest] == whole[at + 1 :]
            async with events(client, f"{path}?after={whole[at]['id']}") as rest:
                assert [e async for e in rest] == whole[at + 1 :]
        async with events(client, f"{path}?after=0", **{"Last-Event-ID": "99999999999"}) as rest:
            assert [e async for e in rest] == []

    play_live(tmp_path, scenario)


@pytest.mark.parametrize("id", ["x", "-1", "1.5", "²", "9" * 21])
def test_a_last_event_id_of_another_stream_is_refused(tmp_path: Path, id: str) -> None:
    async def scenario(node: Node) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        headers = {b"Last-Event-ID": id.encode("latin-1")}
        answer = await node.client.get(f"/api/v1/runs/{run}/events", headers=headers)
        problem_of(answer, 422, "invalid-input")
        problem_of(await node.client.get("/api/v1/runs/aaaa/events"), 404, "not-found")

    play(tmp_path, scenario)


def test_silence_is_filled_with_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT", 0.01)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/events") as live:
            seen = [await anext(live) for _ in range(5)]
            assert seen[3:] == [{"": "still here"}, {"": "still here"}]

    play_live(tmp_path, scenario)


def test_a_server_that_is_cut_off_ends_its_streams_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PROBE", 0.02)
    monkeypatch.setattr(logs, "PROBE", 0.02)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        told = f"/api/v1/runs/{run}/events"
        written = f"/api/v1/runs/{run}/logs?follow=true"
        async with (
            events(client, told) as live,
            events(client, written) as lines,
            events(client, f"{told}?stale=true") as content,
        ):
            for _ in range(3):
                await anext(live)
                await anext(content)
            node.status.cut_off = True
            assert [event async for event in live] == []
            assert [event async for event in lines] == [], "there may be more elsewhere"
            await node.proposer.propose(CancelRun(1, run, "ann"))
            assert (await anext(content))["event"] == "run.cancelling", "it asked for no majority"

    play_live(tmp_path, scenario)


def test_a_run_that_is_deleted_ends_its_streams(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/events") as live:
            await anext(live)
            await node.client.post(f"/api/v1/runs/{run}/cancel")
            await node.client.delete(f"/api/v1/runs/{run}")
            async for _ in live:
                pass

    play_live(tmp_path, scenario)


def test_a_client_that_goes_away_leaves_no_stream(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        for path in ("events", "logs?follow=true"):
            async with client.stream("GET", f"/api/v1/runs/{run}/{path}", headers=SSE) as answer:
                assert answer.status_code == 200
                await streams(node, 1)
            await streams(node, 0)

    play_live(tmp_path, scenario)


def test_a_stopping_server_ends_its_streams_at_once(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/events") as live:
            await anext(live)
            node.wakes.close()
            async for _ in live:
                pass

    play_live(tmp_path, scenario)


def test_too_many_streams_are_asked_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_STREAMS", 1)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/events") as live:
            await anext(live)
            for path in ("events", "logs"):
                answer = await client.get(f"/api/v1/runs/{run}/{path}")
                problem_of(answer, 429, "overloaded")

    play_live(tmp_path, scenario)


def test_logs_are_told_in_the_order_of_their_start_and_cut_between_characters(
    tmp_path: Path,
) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w", "a", "b"))
        await node.staff()
        run = await node.start("w")
        later = "größer — 🐋🐋 ende\n"
        for task, index in (("b", 1), ("a", 0)):
            n = await node.begin(run, index)
            node.shelf.write(task, later)
            node.shelf.write(task, b"bad \xff\xfe\xf0\x9f", stream="stderr")
            node.shelf.end(task)
            await node.finish(n, stdout=len(later.encode()), stderr=8)
        pieces = await lines(client, f"/api/v1/runs/{run}/logs")
        order = list(dict.fromkeys((p["task"], p["stream"]) for p in pieces))
        assert order == [("b", "stdout"), ("b", "stderr"), ("a", "stdout"), ("a", "stderr")]
        texts = told(pieces)
        assert texts["a", "stdout"] == later
        assert texts["b", "stderr"] == "bad \ufffd\ufffd\ufffd"
        one = await lines(client, f"/api/v1/runs/{run}/logs?task=a&stream=stdout&attempt=1")
        assert "".join(p["text"] for p in one) == later
        rest = await lines(
            client,
            f"/api/v1/runs/{run}/logs?task=a&attempt=1&stream=stdout&offset={one[0]['next']}",
        )
        assert one[0]["text"] + "".join(p["text"] for p in rest) == later
        answer = await client.get(f"/api/v1/runs/{run}/logs?task=nobody")
        problem_of(answer, 404, "not-found")
        problem_of(await client.get(f"/api/v1/runs/{run}/logs?task=a&attempt=7"), 404, "not-found")

    play_live(tmp_path, scenario)


def test_following_begins_before_the_first_attempt_and_ends_with_the_run(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w", "a", "b"))
        await node.staff()
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/logs?follow=true") as live:
            first, second = await node.begin(run, 0), await node.begin(run, 1)
            node.shelf.write("a", "one ")
            assert json.loads((await anext(live))["data"])["text"] == "one "
            node.shelf.write("b", "two ")
            event = await anext(live)
            assert (event["event"], json.loads(event["data"])["task"]) == ("log", "b")
            node.shelf.write("a", "three")
            node.shelf.end("a")
            await node.finish(first, stdout=9)
            assert json.loads((await anext(live))["data"])["text"] == "three"
            node.shelf.end("b")
            await node.finish(second, stdout=4)
            assert [e async for e in live] == [{"event": "end", "data": "{}"}]

    play_live(tmp_path, scenario)


def test_following_one_task_ends_with_the_task(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w", "a", "b"))
        await node.staff()
        run = await node.start("w")
        node.shelf.write("a", "done")
        node.shelf.end("a")
        await node.finish(await node.begin(run, 0), stdout=4)
        pieces = await lines(client, f"/api/v1/runs/{run}/logs?task=a&follow=true")
        assert told(pieces) == {("a", "stdout"): "done"}

    play_live(tmp_path, scenario)


def test_following_shows_every_attempt_of_a_task(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        definition = shell("w", "a")
        definition["tasks"][0]["retry"] = {"max": 1}
        await node.apply(definition)
        await node.staff()
        run = await node.start("w")
        async with events(client, f"/api/v1/runs/{run}/logs?follow=true") as live:
            for attempt, state in ((1, AttemptState.FAILED), (2, AttemptState.SUCCEEDED)):
                n = await node.begin(run, 0, attempt)
                node.shelf.write("a", f"try {attempt}", attempt=attempt)
                node.shelf.end("a", attempt)
                await node.finish(n, state, stdout=5)
            seen = [json.loads(e["data"]) async for e in live][:-1]
        assert [(p["attempt"], p["text"]) for p in seen] == [(1, "try 1"), (2, "try 2")]

    play_live(tmp_path, scenario)


@pytest.mark.parametrize(
    "fault",
    [
        ServerUnreachable("worker w1 does not answer"),
        Overloaded("w1 does not answer all at once"),
        ProtocolError("that does not answer the question"),
    ],
)
def test_a_worker_that_cannot_be_asked_gives_one_note_and_then_its_log(
    tmp_path: Path, fault: Exception
) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        n = await node.begin(run)
        node.shelf.fault = fault
        (piece,) = await lines(client, f"/api/v1/runs/{run}/logs")
        assert piece["note"].startswith("the logs on w1 cannot be read now: ")
        assert "does not answer" in piece["note"]
        async with events(client, f"/api/v1/runs/{run}/logs?follow=true&stream=stdout") as live:
            assert "does not answer" in json.loads((await anext(live))["data"])["note"]
            await asyncio.sleep(0.3)
            node.shelf.write("one", "back")
            node.shelf.end("one")
            node.shelf.fault = None
            piece = json.loads((await anext(live))["data"])
            assert (piece["text"], piece["note"]) == ("", "the logs on w1 can be read again")
            piece = json.loads((await anext(live))["data"])
            assert (piece["text"], piece["note"]) == ("back", "")
            await node.finish(n, stdout=4)
            assert [e["event"] async for e in live] == ["end"]

    play_live(tmp_path, scenario)


def test_a_worker_that_is_away_is_one_note_for_all_that_runs_there(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        names = ("one", "two", "three")
        await node.apply(shell("w", *names))
        await node.staff()
        run = await node.start("w")
        numbers = [await node.begin(run, index) for index in range(3)]
        node.shelf.fault = ServerUnreachable("it does not answer")
        async with events(client, f"/api/v1/runs/{run}/logs?follow=true") as live:
            notes = [json.loads((await anext(live))["data"])["note"]]
            await asyncio.sleep(0.3)
            for name in names:
                node.shelf.write(name, name)
                node.shelf.end(name)
            node.shelf.fault = None
            for n in numbers:
                await node.finish(n, stdout=5)
            rest = [json.loads(event["data"]) async for event in live if event["event"] == "log"]
        notes += [piece["note"] for piece in rest if piece["note"]]
        assert [note.partition(":")[0] for note in notes] == [
            "the logs on w1 cannot be read now",
            "the logs on w1 can be read again",
        ]
        assert sorted(piece["text"] for piece in rest if piece["text"]) == sorted(names)

    play_live(tmp_path, scenario)


def test_a_log_that_is_gone_gives_a_note_and_ends(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        await node.finish(await node.begin(run), AttemptState.FAILED, stdout=7)
        node.shelf.fault = NotFound("it was deleted")
        for follow in ("", "?follow=true"):
            (piece,) = await lines(client, f"/api/v1/runs/{run}/logs{follow}")
            assert (piece["text"], "deleted" in piece["note"]) == ("", True)

    play_live(tmp_path, scenario)


def test_a_log_that_never_ends_does_not_hold_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LAST_WAIT", 0.2)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        node.shelf.write("one", b"half \xf0\x9f")
        await node.finish(await node.begin(run), AttemptState.FAILED, stdout=7)
        pieces = await lines(client, f"/api/v1/runs/{run}/logs?follow=true")
        assert told(pieces) == {("one", "stdout"): "half \ufffd"}

    play_live(tmp_path, scenario)


def test_bytes_that_were_cut_out_are_counted(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        await node.staff()
        run = await node.start("w")
        n = await node.begin(run)
        node.shelf.write("one", "x" * 100 + "the end")
        node.shelf.logs["one", 1, "stdout"].begins = 100
        node.shelf.end("one")
        await node.finish(n, stdout=107)
        pieces = await lines(client, f"/api/v1/runs/{run}/logs")
        assert (pieces[0]["skipped"], pieces[0]["offset"]) == (100, 100)
        assert told(pieces) == {("one", "stdout"): "the end"}

    play_live(tmp_path, scenario)


def test_following_logs_in_silence_sends_empty_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "HEARTBEAT", 0.1)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        await node.apply(shell("w"))
        run = await node.start("w")
        path = f"/api/v1/runs/{run}/logs?follow=true"
        async with client.stream("GET", path) as answer:
            assert await anext(answer.aiter_raw()) == b"\n"

    play_live(tmp_path, scenario)


def test_a_bell_rung_while_reading_is_heard() -> None:
    async def scenario() -> None:
        bells = wakes.Wakes()
        with bells.watch("r") as woken, bells.watch("other") as other:
            woken.clear()
            bells.wake("r")
            bells.wake("nobody")
            assert await woken.wait(0.0) is True
            assert woken.take() is True
            assert woken.take() is False
            assert await woken.wait(0.0) is False
            assert other.take() is False
            assert bells.streams == 2
            bells.close()
            assert woken.closed
            assert await woken.wait(0.0) is True
        assert bells.streams == 0
        with bells.watch("late") as late:
            assert late.closed

    asyncio.run(scenario())
