"""What a hostile reader of the metadata center would try, against three servers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from three_servers import OneServer, Three, kept_anew, play

from grampus.cluster import client as keys_client
from grampus.cluster.client import ClusterClient
from grampus.cluster.commands import Origin
from grampus.cluster.requests import (
    CloseSession,
    DeleteKeys,
    GetRange,
    OpenSession,
    PutKey,
    Request,
    Transact,
    View,
    encode,
)
from grampus.errors import (
    GrampusError,
    NoQuorum,
    NotLeader,
    OutcomeUnknown,
    ServerUnreachable,
    WrongHistory,
)

pytestmark = pytest.mark.raft


def test_an_end_that_an_old_leader_has_proposed_is_not_carried_to_the_new_one(
    tmp_path: Path,
) -> None:
    async def scenario(ground: Three) -> None:
        old = await ground.leader()
        client = ground.client()
        session = await client.open_session("s", 10_000)
        await session.put(b"/mine", b"1", ephemeral=True)
        old.cut = True
        # As if it had not heard the holder for long; no other server takes it into its log.
        ending = asyncio.ensure_future(old.keys.sessions._expire([session.session]))
        new = await _another(ground, old)
        await _kept(client, session.session)
        old.cut = False
        await ending
        await client.put(b"/after", b"1")
        got = await client.get(b"/mine")
        assert got.item is not None
        await _kept(client, session.session)
        assert new.replica.leader

    play(tmp_path, scenario)


async def _another(ground: Three, old: OneServer) -> OneServer:
    """The leader, once it is not the old one."""
    while True:
        if (new := await ground.leader()) is not old:
            return new
        await asyncio.sleep(0.05)


async def _kept(client: ClusterClient, session: int) -> None:
    """A leader confirms it; SessionUnknown when it is over."""
    while True:
        try:
            return await client.keep_alive(session, 1)
        except (NotLeader, NoQuorum, ServerUnreachable, OutcomeUnknown):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("held", [False, True], ids=["cut off", "held"])
def test_a_session_goes_to_another_server_when_its_own_cannot_confirm_it(
    tmp_path: Path, held: bool
) -> None:
    async def scenario(ground: Three) -> None:
        old = await ground.leader()
        client = ground.client(old, *ground.servers)
        session = await client.open_session("s", 6_000)
        old.cut, old.held = True, held
        new = await _another(ground, old)
        await kept_anew(session)
        assert new.keys.sessions._core.sessions == 1

    play(tmp_path, scenario)


def test_a_watch_does_not_stay_with_a_server_that_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_client, "WAIT", 500)

    async def scenario(ground: Three) -> None:
        lonely, _ = await ground.followers()
        watcher, writer = ground.client(lonely), ground.client(await ground.leader())
        async with aclosing(watcher.watch(b"/w")) as pieces:
            first = (await anext(pieces)).until
            lonely.cut = True
            written = await writer.put(b"/w", b"1")
            async for piece in pieces:
                if piece.facts:
                    break
        assert written.revision > first
        assert [fact.revision for fact in piece.facts] == [written.revision]

    play(tmp_path, scenario)


@pytest.mark.parametrize("stale", [False, True])
def test_a_silent_watch_of_a_server_that_is_cut_off_ends_unless_it_may_be_stale(
    tmp_path: Path, stale: bool
) -> None:
    async def scenario(ground: Three) -> None:
        lonely, _ = await ground.followers()
        async with aclosing(lonely.keys.watch(b"/", None, View(stale), 0.1)) as pieces:
            await anext(pieces)
            lonely.cut = True
            if stale:
                assert [(await anext(pieces)).facts for _ in range(20)] == [()] * 20
                return
            with pytest.raises(NoQuorum):
                async for _ in pieces:
                    pass

    play(tmp_path, scenario)


HUGE = 2**63


@pytest.mark.parametrize(
    "request_",
    [
        PutKey(b"/a", b"", Origin(HUGE)),
        PutKey(b"/a", b"", Origin(1, HUGE)),
        DeleteKeys(b"/a", False, Origin(1, 1, HUGE)),
        Transact((), (), (), Origin(HUGE)),
        CloseSession(HUGE),
        OpenSession("i" * 129, "s", 5_000),
        GetRange(b"/", -2),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_the_ledger_cannot_hold_never_gets_into_the_log(
    tmp_path: Path, request_: Request
) -> None:
    async def scenario(ground: Three) -> None:
        client = ground.client()
        await client.put(b"/a", b"1")
        line = await client._lines.to(ground.servers[0].address)
        with pytest.raises(GrampusError, match="cannot be read"):
            await client._put_to(line, encode(request_), 4)
        await client.put(b"/a", b"2")
        assert all(server.replica.failure is None for server in ground.servers)

    play(tmp_path, scenario)


def test_a_client_that_has_seen_a_recovered_cluster_never_goes_back_to_the_old_one(
    tmp_path: Path,
) -> None:
    async def scenario(ground: Three) -> None:
        old, recovered, other = ground.servers
        client = ground.client()
        await client.put(b"/a", b"1")
        await recovered.keys.get(b"/a")  # by now it has it too
        recovered.keys.history, recovered.ahead = "h2", 2**32
        newer = ground.client(recovered)
        assert (await newer.get(b"/a", stale=True)).item is not None
        assert newer.seen.history == "h2"
        await recovered.kill()
        for server in (old, other):
            with pytest.raises(WrongHistory, match="has left"):
                await newer._lines.to(server.address)
        with pytest.raises(GrampusError):
            await newer.put(b"/a", b"2", within=1)
        with pytest.raises(GrampusError):
            await newer.get(b"/a", stale=True, within=1)
        got = await client.get(b"/a")
        assert got.item is not None
        assert got.item.value == b"1"

    play(tmp_path, scenario)
