"""Each fault is the same error in Python, over HTTP, at the node port and for the command line.

Nothing is played: three servers have the fault, behind the API, the client and the command that
people use. What comes out has one class, one kind, one status, one exit code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from front import COMMAND, TOKEN, by_the_command, front
from three_servers import OneServer, Three, play

from grampus.api.problems import KINDS
from grampus.cluster import requests
from grampus.cluster.client import ClusterClient
from grampus.cluster.commands import Compact, encode_command
from grampus.cluster.requests import GetChanges, GetKey, KeepAlive, PutKey, Seen, View
from grampus.cluster.writes import Writes
from grampus.errors import (
    Compacted,
    GrampusError,
    Lagging,
    LockLost,
    NoQuorum,
    NotLeader,
    SessionUnknown,
    TooLarge,
    Unauthorized,
    VersionMismatch,
    WrongCluster,
    WrongHistory,
)
from grampus.sdk.client import Client
from grampus.testing import next_version

pytestmark = pytest.mark.raft

KV, SESSIONS = "/api/v1/kv", "/api/v1/sessions"
LARGE = b"x" * 70_000


@dataclass(frozen=True)
class Http:
    """A request, and who asks."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True)
class Case:
    """What brings an error about, by each way that there is to it."""

    error: type[GrampusError]
    status: int
    exit_code: int
    #: At the node port, of the server that is asked.
    node: Callable[[ClusterClient, OneServer], Awaitable[object]] | None = None
    #: The path may have a `{session}`, of one that was begun before.
    http: Http | None = None
    client: Callable[[Client], object] | None = None
    command: tuple[str, ...] = ()
    #: Before it, with the server that will be asked; and while the command runs.
    first: Callable[[Three, OneServer], Awaitable[None]] | None = None
    meanwhile: Callable[[OneServer], Awaitable[None]] | None = None
    #: The server that is asked leads, or follows.
    leads: bool = True


async def forget(ground: Three, server: OneServer) -> None:
    for number in range(3):
        await server.keys.put(b"/a", b"%d" % number)
    await server.replica.propose([encode_command(Compact(2**60, 2**60))])


async def lose_the_others(ground: Three, server: OneServer) -> None:
    for other in ground.servers:
        if other is not server:
            await other.kill()
    while server.replica.leader_id:  # noqa: ASYNC110, of what nobody is told
        await asyncio.sleep(0.02)


def asked(request: requests.Request) -> Callable[[ClusterClient, OneServer], Awaitable[object]]:
    async def ask(client: ClusterClient, server: OneServer) -> object:
        line = await client._lines.to(server.address)
        return await client._put_to(line, requests.encode(request), 10.0)

    return ask


async def gives_up_what_it_has_not(client: ClusterClient, server: OneServer) -> None:
    session = await client.open_session("s", 10_000)
    await session.unlock("x")


async def end_the_holder(server: OneServer) -> None:
    """Of lock x, once somebody holds it."""
    taken = await server.keys.changes(b"/locks/x/", 1, COMMAND)
    await server.keys.close_session(taken.facts[0].changes[0].session)


def unlocks(client: Client) -> object:
    with client.kv.session("s") as session:
        return session.unlock("x")


def puts_in_a_session_that_is_over(client: Client) -> object:
    with client.kv.session("s") as session:
        client._transport.ask("DELETE", f"{SESSIONS}/{session.id}")
        return client.kv.put("/a", b"", session=session)


def keeps_a_session_alive(client: Client) -> object:
    return client._transport.ask("POST", f"{SESSIONS}/999/keep-alive")


def seen(state: str) -> Callable[[Client], object]:
    def ask(client: Client) -> object:
        client.kv._seen = state
        return client.kv.get("/a")

    return ask


def with_a_wrong_token(client: Client) -> object:
    with Client(client._transport.urls, "wrong") as stranger:
        return stranger.kv.get("/a")


def asks(method: str, path: str = "/%2Fa", content: bytes = b"", **headers: str) -> Http:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Http(method, KV + path, named, content)


CASES = {
    "too-large": Case(
        TooLarge, 413, 2,
        asked(PutKey(b"/a", LARGE)), asks("PUT", content=LARGE),
        lambda client: client.kv.put("/a", LARGE), ("kv", "put", "k" * 600, "x"),
    ),
    "session-unknown": Case(
        SessionUnknown, 409, 4,
        asked(KeepAlive(999)), Http("POST", f"{SESSIONS}/999/keep-alive"),
        puts_in_a_session_that_is_over,
    ),
    "lock-lost": Case(
        LockLost, 409, 4,
        gives_up_what_it_has_not, Http("DELETE", "/api/v1/locks/x?session={session}"), unlocks,
        ("kv", "lock", "x", "sleep", "60"), meanwhile=end_the_holder,
    ),
    "compacted": Case(
        Compacted, 410, 4,
        asked(GetChanges(b"/", 2, 0, View())), asks("GET", "?watch=true&from=2"),
        lambda client: next(iter(client.kv.watch("/", first=2))), ("kv", "watch", "--from", "2"),
        first=forget,
    ),
    "no-quorum": Case(
        NoQuorum, 503, 3,
        asked(PutKey(b"/a", b"")), asks("PUT"),
        lambda client: client.kv.put("/a", b""), ("kv", "put", "/a", "x"),
        first=lose_the_others,
    ),
    "not-leader": Case(
        NotLeader, 503, 4,
        asked(KeepAlive(999)), Http("POST", f"{SESSIONS}/999/keep-alive"), keeps_a_session_alive,
        leads=False,
    ),
    "lagging": Case(
        Lagging, 503, 4,
        asked(GetKey(b"/a", View(seen=Seen("h1", 2**40)))), asks("GET", Grampus_Seen=f"h1:{2**40}"),
        seen(f"h1:{2**40}"),
    ),
    "unauthorized": Case(
        Unauthorized, 401, 4,
        http=asks("GET", Authorization="Bearer wrong"),
        client=with_a_wrong_token,
        command=("--token-file", "wrong-token", "kv", "get", "/a"),
    ),
    "wrong-cluster": Case(WrongCluster, 421, 4, http=asks("GET", Grampus_Cluster="c9")),
    "wrong-history": Case(
        WrongHistory, 409, 4,
        asked(GetKey(b"/a", View(seen=Seen("h0", 1)))), asks("GET", Grampus_Seen="h0:1"),
        seen("h0:1"),
    ),
    "version-mismatch": Case(
        VersionMismatch, 409, 4,
        asked(PutKey(b"/mark/a", b"")), asks("PUT", "/%2Fmark%2Fa"),
        lambda client: client.kv.put("/mark/a", b""), ("kv", "put", "/mark/a", "x"),
    ),
}  # fmt: skip


async def at_the_node_port(ground: Three, server: OneServer, case: Case) -> str:
    assert case.node is not None
    with pytest.raises(case.error) as met:
        await case.node(ground.client(server), server)
    assert type(met.value) is case.error
    return str(met.value)


async def over_http(server: OneServer, url: str, case: Case, kind: str) -> str:
    it = case.http
    assert it is not None
    path = it.path
    if "{session}" in path:
        path = path.format(session=await server.keys.open_session("s", 10_000))
    headers = {"Authorization": f"Bearer {TOKEN}", **it.headers}
    async with httpx.AsyncClient(base_url=url, timeout=20.0) as client:
        answer = await client.request(it.method, path, headers=headers, content=it.content)
    told = answer.json()
    assert (answer.status_code, told["type"]) == (case.status, f"urn:grampus:problem:{kind}")
    assert told["title"] == KINDS[kind][1]
    return str(told["detail"])


def to_a_client(url: str, case: Case) -> str:
    assert case.client is not None
    with Client(url, TOKEN) as client, pytest.raises(case.error) as met:
        case.client(client)
    assert type(met.value) is case.error
    return str(met.value)


async def to_a_command(server: OneServer, url: str, folder: Path, case: Case) -> None:
    running = asyncio.ensure_future(by_the_command(url, folder, case.command))
    if case.meanwhile is not None:
        await case.meanwhile(server)
    code, said = await running
    assert code == case.exit_code, said
    assert "error: " in said


@pytest.fixture
def next_known(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A put under /mark/ proposes what only the next version knows, as a new feature would."""
    plain = Writes.put

    def put(self: Writes, key: bytes, *rest: Any) -> bytes:
        if key.startswith(b"/mark/"):
            return next_version.encode_mark(next_version.Mark(1, key))
        return plain(self, key, *rest)

    monkeypatch.setattr(Writes, "put", put)
    with next_version.known():
        yield


@pytest.mark.usefixtures("next_known")
@pytest.mark.parametrize("kind", CASES)
def test_a_fault_is_one_error_whichever_way_it_is_met(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]

    async def scenario(ground: Three) -> None:
        leader = await ground.leader()
        server = leader if case.leads else (await ground.followers())[0]
        if case.first is not None:
            await case.first(ground, server)
        texts: list[str] = []
        async with front(server) as url:
            if case.node is not None:
                texts.append(await at_the_node_port(ground, server, case))
            if case.http is not None:
                texts.append(await over_http(server, url, case, kind))
            if case.client is not None:
                texts.append(await asyncio.to_thread(to_a_client, url, case))
            if case.command:
                await to_a_command(server, url, tmp_path, case)
        assert case.error.exit_code == case.exit_code
        assert texts
        # It says what to do, which takes more than a word.
        assert all(len(text) > 20 for text in texts), texts

    play(tmp_path, scenario)


def test_a_client_does_not_go_on_at_another_cluster(tmp_path: Path) -> None:
    """Two of its servers are of different clusters: the first that answers is the one it means."""

    async def scenario(ground: Three) -> None:
        leader = await ground.leader()
        async with front(leader, "c2") as other:
            async with front(leader) as url:
                client = Client([url, other], TOKEN)
                await asyncio.to_thread(client.kv.put, "/a", b"1")
                code, _ = await by_the_command(f"{url},{other}", tmp_path, ("kv", "get", "/a"))
                assert code == 0
            with pytest.raises(WrongCluster, match="of cluster c2, not of c1"):
                await asyncio.to_thread(client.kv.get, "/a")
            # Neither do its sessions: there is one of that number in each of the two.
            for each in client._transport.apart(5.0):
                if each.urls == [other]:
                    with pytest.raises(WrongCluster):
                        await asyncio.to_thread(each.ask, "POST", "/api/v1/sessions/1/keep-alive")
                each.close()
            client.close()
            with Client([other, url], TOKEN) as anew:
                got = await asyncio.to_thread(anew.kv.get, "/a")
                assert got.value == b"1"

    play(tmp_path, scenario)
