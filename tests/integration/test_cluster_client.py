"""The client of the metadata center against three servers, while they die or are cut off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from three_servers import Three, kept_anew, play

from grampus.clock import SystemClock
from grampus.cluster.client import ClusterClient
from grampus.cluster.commands import Compact, Compare, PutOp, encode_command
from grampus.cluster.monitor import About, ClusterMonitor, worker_key
from grampus.cluster.registrations import Registrations
from grampus.cluster.requests import KeepAlive, PutKey, encode
from grampus.consensus import asking
from grampus.errors import (
    Compacted,
    LockLost,
    NoQuorum,
    NotLeader,
    Refused,
    SessionUnknown,
    TooLarge,
)
from grampus.rpc.calls import ConnectionLost

pytestmark = pytest.mark.raft


def test_what_one_client_has_put_every_other_reads(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        clients = [ground.client(server) for server in ground.servers]
        for number in range(30):
            writer, reader = clients[number % 3], clients[(number + 1) % 3]
            written = await writer.put(b"/a", b"%d" % number)
            got = await reader.get(b"/a")
            assert got.item is not None
            assert (got.item.value, got.item.modified) == (b"%d" % number, written.revision)
        first = clients[0]
        done = await first.txn([Compare(b"/b", "version", "=", 0)], [PutOp(b"/b", b"1")])
        assert done.succeeded
        page = await clients[1].range(b"/", 1)
        assert (len(page.items), page.more) == (1, True)
        assert (await clients[2].delete(b"/b")).count == 1
        assert (await first.get(b"/b")).item is None
        with pytest.raises(TooLarge):
            await first.put(b"k" * 513, b"")
        stale = await first.get(b"/a", stale=True)
        assert stale.revision >= first.seen.revision

    play(tmp_path, scenario)


def test_a_client_goes_on_while_one_server_after_the_other_dies(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client = ground.client(ground.servers[0])
        await client.put(b"/n", b"0")
        for server in ground.servers:
            await server.kill()
            session = await client.open_session("s", 20_000)
            await session.put(b"/n", server.member.name.encode())
            got = await client.get(b"/n")
            assert got.item is not None
            assert got.item.value == server.member.name.encode()
            await server.start()

    play(tmp_path, scenario)


def test_without_a_majority_a_write_and_a_read_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(ground: Three) -> None:
        last, *others = ground.servers
        client = ground.client(last)
        await client.put(b"/a", b"1")
        for server in others:
            await server.kill()
        monkeypatch.setattr(asking, "LEADERLESS", 0.3)
        while last.replica.leader_id or last.replica.led < 300:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        everywhere = ground.client()
        for one in (client, everywhere):
            with pytest.raises(NoQuorum):
                await one.put(b"/a", b"2", within=30)  # it knows better than to wait so long
        begun = asyncio.get_running_loop().time()
        with pytest.raises(NoQuorum):
            await everywhere.put(b"/a", b"2", within=30)
        assert asyncio.get_running_loop().time() - begun < 8
        with pytest.raises(NoQuorum):
            await client.get(b"/a", within=3)
        got = await client.get(b"/a", stale=True)
        assert got.item is not None
        assert got.item.value == b"1"

    play(tmp_path, scenario)


def test_a_watch_tells_every_change_once_while_its_server_is_killed(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        watcher, writer = ground.client(), ground.client()
        first = (await writer.put(b"/w/0", b"0")).revision
        told: list[tuple[int, bytes]] = []

        async def watch() -> None:
            async with aclosing(watcher.watch(b"/w/", first)) as pieces:
                async for piece in pieces:
                    told.extend((f.revision, c.key) for f in piece.facts for c in f.changes)
                    if told and told[-1][1] == b"/w/end":
                        return

        watching = asyncio.ensure_future(watch())
        wrote = [(first, b"/w/0")]
        session = await writer.open_session("w", 30_000)
        for number in range(1, 90):
            if number in (30, 60):
                at = next(s for s in ground.servers if s.address == watcher._route.home)
                await at.kill()
            key = b"/w/%d" % number
            wrote.append(((await session.put(key, b"")).revision, key))
            if number in (45, 75):
                await at.start()
        wrote.append(((await session.put(b"/w/end", b"")).revision, b"/w/end"))
        await watching
        assert told == wrote

    play(tmp_path, scenario)


def test_a_watch_from_what_is_forgotten_says_so(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client = ground.client()
        for number in range(5):
            await client.put(b"/a", b"%d" % number)
        leader = await ground.leader()
        now = leader.keys._clock.now()
        await leader.replica.propose([encode_command(Compact(now, now + 1))])
        with pytest.raises(Compacted) as told:
            async for _ in client.watch(b"/", 2):
                pass
        assert told.value.first == client.seen.revision + 1

    play(tmp_path, scenario)


def test_a_session_outlives_its_leader_and_ends_with_its_holder(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client, other = ground.client(), ground.client()
        session = await client.open_session("s", 3_000)
        first = (await session.put(b"/mine", b"1", ephemeral=True)).revision
        leader = await ground.leader()
        await leader.kill()
        await kept_anew(session)
        assert (await other.get(b"/mine")).item is not None
        client.close()  # as if the process had died
        assert not session.lives
        async with asyncio.timeout(10), aclosing(other.watch(b"/mine", first)) as pieces:
            async for piece in pieces:
                if any(change.value is None for fact in piece.facts for change in fact.changes):
                    break
        with pytest.raises(SessionUnknown):
            await session.put(b"/mine", b"2")

    play(tmp_path, scenario)


def test_a_leader_that_was_deposed_unawares_prolongs_nothing(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        old = await ground.leader()
        client = ground.client(old)
        session = await client.open_session("s", 5_000)
        await session.put(b"/mine", b"1", ephemeral=True)
        line = await client._lines.to(old.address)
        old.cut = True
        for _ in range(20):  # it hears us, and believes that it leads for a while yet
            with pytest.raises((NoQuorum, NotLeader)):
                await client._put_to(line, encode(KeepAlive(session.session)), 4)
            if not old.replica.leader:
                break
        else:
            pytest.fail("it still leads")
        # The holder has found the new leader meanwhile.
        assert session.lives
        new = await ground.leader()
        assert new is not old
        got = await client.get(b"/mine")
        assert got.item is not None

    play(tmp_path, scenario)


def test_a_holder_cut_off_from_all_gives_up_before_the_servers_do(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client, other = ground.client(), ground.client()
        session = await client.open_session("s", 1_000)
        token = await session.lock("job", 1)
        rival = await other.open_session("r", 20_000)
        waiting = asyncio.ensure_future(rival.lock("job", 20))
        await asyncio.sleep(0.3)

        async def lost(*_: object) -> None:
            await asyncio.Event().wait()

        client.keep_alive = lost  # type: ignore[method-assign]
        await session.wait_over()
        assert not waiting.done()
        assert await waiting > token
        with pytest.raises(SessionUnknown):
            await session.unlock("job")

    play(tmp_path, scenario)


def test_locks_go_from_hand_to_hand_over_any_server(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        holders = [
            await ground.client(server).open_session(server.member.name, 30_000)
            for server in ground.servers
        ]
        tokens: list[int] = []
        inside = 0

        async def work(number: int) -> None:
            nonlocal inside
            for _ in range(3):
                tokens.append(await holders[number].lock("job", 30))
                inside += 1
                await asyncio.sleep(0.01)
                assert inside == 1
                inside -= 1
                await holders[number].unlock("job")

        await asyncio.gather(*[work(number) for number in range(3)])
        assert len(tokens) == 9
        assert tokens == sorted(set(tokens))
        with pytest.raises(LockLost):
            await holders[0].unlock("job")
        await holders[0].lock("job", 1)
        with pytest.raises(Refused, match="is before you"):
            await holders[1].lock("job", 0.2)
        assert (await ground.client().range(b"/locks/")).items[0].session == holders[0].session

    play(tmp_path, scenario)


def test_a_request_of_a_session_that_is_over_is_refused_on_every_server(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client = ground.client()
        session = await client.open_session("s", 20_000)
        origin = await session.number()
        await session.put(b"/mine", b"1", ephemeral=True)
        await session.close()
        assert (await client.get(b"/mine")).item is None
        for server in ground.servers:
            line = await client._lines.to(server.address)
            with pytest.raises(SessionUnknown):
                await client._put_to(line, encode(PutKey(b"/late", b"", origin)), 5)
        assert (await client.get(b"/late")).item is None

    play(tmp_path, scenario)


def test_a_write_of_a_session_happens_once_though_its_answer_is_lost(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client = ground.client()
        session = await client.open_session("s", 30_000)
        put, lost = client._put_to, 0

        async def forgetful(line: object, body: bytes, within: float) -> object:
            nonlocal lost
            answer = await put(line, body, within)  # type: ignore[arg-type]
            if b"/n" in body and lost < 5:
                lost += 1
                line.close("the answer is lost")  # type: ignore[attr-defined]
                raise ConnectionLost("lost")
            return answer

        client._put_to = forgetful  # type: ignore[method-assign, assignment]
        for number in range(10):
            await session.put(b"/n", b"%d" % number)
        got = await client.get(b"/n")
        assert got.item is not None
        assert (got.item.version, lost) == (10, 5)

    play(tmp_path, scenario)


def test_more_writes_than_a_session_may_have_open_wait_for_each_other(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        session = await ground.client().open_session("s", 30_000)
        await asyncio.gather(*[session.put(b"/k/%03d" % n, b"") for n in range(400)])
        assert len((await ground.client().range(b"/k/", 1000)).items) == 400

    play(tmp_path, scenario)


def test_more_requests_than_a_server_works_on_are_all_answered(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        client = ground.client(await ground.leader())
        await client.put(b"/k", b"")
        written = await asyncio.gather(
            *[client.put(b"/k/%d" % n, b"") for n in range(600)],
            *[client.txn((), (PutOp(b"/t/%d" % n, b""),)) for n in range(100)],
            *[client.get(b"/k") for _ in range(100)],
        )
        assert len({done.revision for done in written[:700]}) == 700

    play(tmp_path, scenario)


def test_registrations_come_back_after_a_lost_session_with_the_newest_values(
    tmp_path: Path,
) -> None:
    async def scenario(ground: Three) -> None:
        client, reader = ground.client(), ground.client()
        registrations = Registrations(client, "me", 5_000)
        running = asyncio.ensure_future(registrations.run())
        registrations.set(b"/servers/me", b"1")
        registrations.set(b"/servers/me", b"2")
        assert await until(reader, b"/servers/me", b"2")
        lost = registrations._session
        assert lost is not None
        await reader.end_session(lost.session, 5)
        registrations.set(b"/servers/me", b"3")
        assert await until(reader, b"/servers/me", b"3")
        leader = await ground.leader()
        await leader.kill()
        registrations.set(b"/servers/me", b"4")
        assert await until(reader, b"/servers/me", b"4")
        running.cancel()
        await asyncio.wait([running])
        assert (await reader.get(b"/servers/me")).item is None

    play(tmp_path, scenario)


async def until(client: ClusterClient, key: bytes, value: bytes) -> bool:
    for _ in range(200):
        item = (await client.get(key)).item
        if item is not None and item.value == value:
            return True
        await asyncio.sleep(0.05)
    return False


def test_a_process_is_listed_with_its_load_and_goes_when_it_is_silent(tmp_path: Path) -> None:
    async def scenario(ground: Three) -> None:
        reader = ground.client()
        client = ground.client()
        registrations = Registrations(client, "w1", 2_000)
        about = {"name": "w1", "host": "h", "pid": 1, "group": "default", "slots": 2}
        key = worker_key("default", "w1")
        monitor = ClusterMonitor(registrations, key, about, SystemClock())
        running = asyncio.ensure_future(monitor.run())
        for _ in range(100):
            if (found := (await reader.get(key)).item) is not None:
                break
            await asyncio.sleep(0.05)
        assert found is not None
        told = msgspec.json.decode(found.value, type=About)
        assert (told.name, told.slots, told.heartbeat >= told.start_time) == ("w1", 2, True)
        assert 0 < told.memory < told.total_memory
        assert told.cpus > 0
        client.close()  # as if it had been killed
        for _ in range(100):
            if (await reader.get(key)).item is None:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("it is listed still")
        running.cancel()
        await asyncio.wait([running])

    play(tmp_path, scenario)
