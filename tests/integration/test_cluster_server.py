"""The metadata center of a server, over a real log: reads, writes, watches, sessions, locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from pathlib import Path

import pytest
from cluster_ground import a_center, play

from grampus.cluster import feed as feed_module
from grampus.cluster.commands import Compact, Compare, GetOp, Origin, PutOp, encode_command
from grampus.cluster.events import event_key, topic_prefix
from grampus.cluster.queries import Piece
from grampus.cluster.requests import Seen, View
from grampus.cluster.retention import KEEP
from grampus.cluster.server import FRESH, ClusterServer
from grampus.cluster.values import KeysChanged
from grampus.errors import (
    Compacted,
    InvalidInput,
    Lagging,
    LockLost,
    NoQuorum,
    Refused,
    SessionUnknown,
    TooLarge,
    WrongHistory,
)

SHORT = 1_000


async def take(pieces: AsyncGenerator[Piece, None], count: int) -> list[KeysChanged]:
    facts: list[KeysChanged] = []
    async for piece in pieces:
        facts += piece.facts
        if len(facts) >= count:
            return facts
    return facts


def test_what_was_put_is_read_and_survives_a_restart(tmp_path: Path) -> None:
    async def first(server: ClusterServer) -> None:
        written = await server.put(b"/a", b"1")
        got = await server.get(b"/a")
        assert got.item is not None
        assert (got.item.value, got.item.modified) == (b"1", written.revision)
        assert (await server.get(b"/none")).item is None
        await asyncio.gather(*[server.put(b"/k/%03d" % n, b"x") for n in range(250)])
        page = await server.range(b"/k/", 100)
        assert (len(page.items), page.more) == (100, True)
        page = await server.range(b"/k/", 1000, after=page.items[-1].key)
        assert (len(page.items), page.more) == (150, False)
        assert await server.count(b"/k/") == 250
        assert (await server.delete_prefix(b"/k/")).count == 250

    async def second(server: ClusterServer) -> None:
        assert (await server.get(b"/a")).item is not None
        assert await server.count(b"") == 1

    play(tmp_path, first)
    play(tmp_path, second)


def test_a_read_is_never_older_than_what_was_seen(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        await server.put(b"/a", b"1")
        seen = server.seen
        assert (await server.get(b"/a", View(seen=seen))).revision >= seen.revision
        ahead = View(stale=True, seen=Seen("h1", seen.revision + 1))
        waiting = asyncio.ensure_future(server.get(b"/a", ahead))
        await asyncio.sleep(0)
        await server.put(b"/a", b"2")
        assert (await waiting).item.value == b"2"  # type: ignore[union-attr]
        feed_before, server_module = server.feed.revision, "grampus.cluster.server.CATCH_UP"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_module, 0.05)
            with pytest.raises(Lagging, match="ask another server"):
                await server.get(b"/a", View(seen=Seen("h1", feed_before + 9)))
        with pytest.raises(WrongHistory, match="restored or recovered") as told:
            await server.get(b"/a", View(seen=Seen("h0", 1)))
        assert (told.value.history, told.value.revision) == ("h1", server.seen.revision)

    play(tmp_path, scenario)


def test_what_is_too_large_or_means_nothing_is_refused(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        with pytest.raises(TooLarge):
            await server.put(b"k" * 513, b"")
        with pytest.raises(TooLarge, match="keep it elsewhere"):
            await server.put(b"/k", b"x" * (64 * 1024 + 1))
        with pytest.raises(InvalidInput, match="UTF-8"):
            await server.put(b"/\xff", b"")
        with pytest.raises(InvalidInput, match="empty"):
            await server.get(b"")
        with pytest.raises(InvalidInput, match="takes a session"):
            await server.put(b"/k", b"", ephemeral=True)
        with pytest.raises(TooLarge, match="129"):
            await server.txn((), [GetOp(b"/k")] * 129)
        with pytest.raises(TooLarge, match="make several"):
            await server.txn((), [PutOp(b"/%d" % n, b"x" * 60_000) for n in range(5)])
        with pytest.raises(InvalidInput, match="twice"):
            await server.txn((), [PutOp(b"/k", b""), PutOp(b"/k", b"")])
        with pytest.raises(InvalidInput, match="compared"):
            await server.txn([Compare(b"/k", "value", "=", 1)], ())
        assert server.feed.revision == 0

    play(tmp_path, scenario)


def test_watches_see_every_revision_once_and_resume_anywhere(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        for n in range(5):
            await server.txn(
                (), [PutOp(b"/w/a", b"%d" % n), PutOp(b"/w/b", b""), PutOp(b"/x", b"")]
            )
        async with aclosing(server.watch(b"/w/", 2)) as pieces:
            await server.put(b"/x", b"not mine")
            await server.put(b"/w/c", b"last")
            facts = await take(pieces, 5)
        assert [fact.revision for fact in facts] == [2, 3, 4, 5, 7]
        assert all(len(fact.changes) == 2 for fact in facts[:4])
        async with aclosing(server.watch(b"/w/")) as pieces:
            first = await anext(pieces)
            assert first == Piece(7, ())
            await server.delete(b"/w/c")
            (fact,) = await take(pieces, 1)
        assert (fact.revision, fact.changes[0].value) == (8, None)
        assert server.feed.watchers == 0

    play(tmp_path, scenario)


def test_a_slow_watcher_reads_on_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "RECENT", 10)

    async def scenario(server: ClusterServer) -> None:
        async with aclosing(server.watch(b"/w/")) as slow, aclosing(server.watch(b"/q")) as quiet:
            await anext(slow)
            await anext(quiet)
            first = asyncio.ensure_future(anext(quiet))
            for n in range(100):
                await server.put(b"/w/%d" % (n % 7), b"%d" % n)
            facts = await take(slow, 100)
            assert [fact.revision for fact in facts] == list(range(1, 101))
            # Who is not concerned is carried along, and does not have to read.
            monkeypatch.setattr(server._reads, "history", None)
            await server.put(b"/q", b"")
            assert (await first).facts[0].revision == 101

    play(tmp_path, scenario)


def test_a_watcher_whose_place_is_forgotten_is_told(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        for n in range(10):
            await server.put(b"/a", b"%d" % n)
        server.feed.start()  # as after a restart: nothing is in memory
        now = server._clock.now()
        await server._replica.propose([encode_command(Compact(now, now + 1))])
        async with aclosing(server.watch(b"/", 3)) as pieces:
            with pytest.raises(Compacted) as told:
                await take(pieces, 1)
        assert told.value.first == 11
        async with aclosing(server.watch(b"/", told.value.first)) as pieces:
            await server.put(b"/a", b"new")
            assert (await take(pieces, 1))[0].revision == 11

    play(tmp_path, scenario)


def test_a_silent_watch_tells_how_far_it_has_come(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        async with aclosing(server.watch(b"/w/", silence=0.05)) as pieces:
            await anext(pieces)
            await server.put(b"/other", b"")
            assert await anext(pieces) == Piece(1, ())

    play(tmp_path, scenario)


def test_watches_end_when_the_server_stops(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        async with aclosing(server.watch(b"/")) as pieces:
            await anext(pieces)
            rest = asyncio.ensure_future(take(pieces, 1))
            await asyncio.sleep(0.01)
            server.close()
            assert await rest == []

    play(tmp_path, scenario)


# sessions


def test_a_session_that_is_kept_alive_lives_and_a_silent_one_is_over(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        kept, silent = [await server.open_session(name, SHORT) for name in ("kept", "silent")]
        for session in (kept, silent):
            await server.put(b"/s/%d" % session, b"", origin=Origin(session), ephemeral=True)
        async with aclosing(server.watch(b"/s/")) as pieces:
            gone = asyncio.ensure_future(take(pieces, 1))
            while not gone.done():
                await server.keep_alive(kept)
                await asyncio.sleep(0.1)
        assert [change.key for change in gone.result()[0].changes] == [b"/s/%d" % silent]
        await server.keep_alive(kept)
        with pytest.raises(SessionUnknown):
            await server.keep_alive(silent)
        with pytest.raises(SessionUnknown, match="begin a new one"):
            await server.put(b"/late", b"", origin=Origin(silent, 1))
        await server.close_session(kept)
        assert await server.count(b"/s/") == 0
        with pytest.raises(SessionUnknown):
            await server.close_session(kept)

    play(tmp_path, scenario)


def test_sessions_get_their_full_time_after_a_restart(tmp_path: Path) -> None:
    async def go() -> None:
        async with a_center(tmp_path) as server:
            session = await server.open_session("s", SHORT, "instance")
            await asyncio.sleep(0.7)
        async with a_center(tmp_path) as server:
            await asyncio.sleep(0.6)
            await server.keep_alive(session)
            assert await server.open_session("s", SHORT, "instance") == session

    asyncio.run(go())


def test_one_node_does_not_take_the_sessions_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grampus.cluster.server.SESSIONS_OF_ONE", 3)

    async def scenario(server: ClusterServer) -> None:
        def begin(number: int, owner: str) -> Awaitable[int]:
            return server.open_session("s", 60_000, f"i{number}", owner)

        many = await asyncio.gather(
            *(begin(n, "worker.w1") for n in range(20)), return_exceptions=True
        )
        refused = [each for each in many if isinstance(each, Refused)]
        sessions = [each for each in many if isinstance(each, int)]
        assert (len(sessions), len(refused)) == (3, 17)
        assert str(refused[0]) == "worker w1 has 3 sessions already: close some"
        # Who has lost the answer may ask again; others, and users, are not concerned.
        assert await begin(many.index(sessions[0]), "worker.w1") == sessions[0]
        assert await begin(many.index(sessions[0]), "worker.w10") not in sessions
        for number in range(5):
            assert await begin(number, "") not in sessions
        await server.close_session(sessions[0])
        assert await begin(99, "worker.w1") not in sessions
        with pytest.raises(Refused):
            await begin(100, "worker.w1")
        assert not server._opening

    play(tmp_path, scenario)


# locks


def test_locks_go_round_in_the_order_of_asking_with_growing_tokens(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        sessions = [await server.open_session(f"s{n}", 60_000) for n in range(4)]
        held: list[tuple[int, int]] = []

        async def work(session: int) -> None:
            token = await server.lock("job", session, 10)
            assert await server.lock("job", session, 10) == token
            held.append((session, token))
            await asyncio.sleep(0.01)
            held.append((session, token))
            await server.unlock("job", session)

        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(work(session))
                await asyncio.sleep(0.01)
        assert [session for session, _ in held] == [s for s in sessions for _ in range(2)]
        tokens = [token for _, token in held[::2]]
        assert tokens == sorted(set(tokens))
        assert await server.count(b"/locks/") == 0
        with pytest.raises(LockLost):
            await server.unlock("job", sessions[0])

    play(tmp_path, scenario)


def test_who_does_not_get_a_lock_in_time_leaves_the_line(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        one, two = [await server.open_session(name, 60_000) for name in ("one", "two")]
        await server.lock("job", one, 1)
        with pytest.raises(Refused, match=f"session {one} is before you"):
            await server.lock("job", two, 0.05)
        assert await server.count(b"/locks/") == 1

    play(tmp_path, scenario)


def test_a_lock_is_free_when_the_session_of_its_holder_is_over(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        one, two = [await server.open_session(name, 60_000) for name in ("one", "two")]
        token = await server.lock("job", one, 1)
        waiting = asyncio.ensure_future(server.lock("job", two, 10))
        await asyncio.sleep(0.01)
        await server.close_session(one)
        assert await waiting > token
        three = await server.open_session("three", 60_000)
        waiting = asyncio.ensure_future(server.lock("job", three, 10))
        await asyncio.sleep(0.01)
        await server.close_session(three)
        with pytest.raises(LockLost):
            await waiting

    play(tmp_path, scenario)


# events and retention


def test_events_reach_all_or_one_in_order_and_go_after_a_day(tmp_path: Path) -> None:
    async def scenario(server: ClusterServer) -> None:
        to_one, to_all = topic_prefix("to/w1"), topic_prefix("notes")
        async with aclosing(server.watch(to_one)) as one, aclosing(server.watch(to_all)) as every:
            await anext(one)
            await anext(every)
            for n in range(20):
                await server.publish("notes", b"%d" % n)
            await server.publish("to/w1", b"stop")
            assert [f.changes[0].value for f in await take(every, 20)] == [
                b"%d" % n for n in range(20)
            ]
            assert (await take(one, 1))[0].changes[0].value == b"stop"
        for wrong in ("", "/notes", "a//b"):
            with pytest.raises(InvalidInput):
                await server.publish(wrong, b"")
        await server.put(b"/events/by-hand", b"stays")
        old = event_key("notes", server._clock.now() - KEEP - 1, b"1234")
        await server.put(old, b"old")
        await server._retention.once()
        assert (await server.get(old)).item is None
        assert await server.count(b"/events/") == 22
        server.feed.start()
        after = server._clock.now() + KEEP + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server._clock, "now", lambda: after)
            await server._retention.once()
        assert await server.count(b"/events/") == 1
        with pytest.raises(Compacted):
            await anext(server.watch(b"/", 2))

    play(tmp_path, scenario)


def test_silence_is_told_only_where_the_server_hears_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(server: ClusterServer) -> None:
        async def ask() -> object:
            told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            assert server.ask_changes(b"/w/", 1, 0.0, View(stale=True), told.set_result)
            return await told

        async def cut_off() -> None:
            raise NoQuorum("cut off")

        assert await ask() == Piece(0, ())
        monkeypatch.setattr(server._replica, "read_barrier", cut_off)
        monkeypatch.setattr(server, "_heard", (-FRESH, None))
        assert isinstance(await ask(), NoQuorum)

    play(tmp_path, scenario)
