"""Each fault is the same error in Python, over HTTP, at the node port and for the command line.

Nothing is played: three servers have the fault, behind the API, the client and the command that
people use. What comes out has one class, one kind, one status, one exit code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from front import TOKEN, by_the_command, front
from three_servers import OneServer, Three, play

from grampus.api.problems import KINDS
from grampus.cluster import requests
from grampus.cluster.commands import Compact, encode_command
from grampus.cluster.requests import GetChanges, GetKey, KeepAlive, PutKey, Seen, View
from grampus.cluster.writes import Writes
from grampus.errors import (
    Compacted,
    GrampusError,
    Lagging,
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

KV = "/api/v1/kv"
LARGE = b"x" * 70_000


@dataclass(frozen=True)
class Http:
    """A request, and who asks."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes = b""


@dataclass(frozen=True)
class Case:
    """What brings an error about, by each way that there is to it."""

    error: type[GrampusError]
    status: int
    exit_code: int
    #: At the node port, of the server that is asked.
    node: requests.Request | None = None
    http: Http | None = None
    client: Callable[[Client], object] | None = None
    command: tuple[str, ...] = ()
    #: Before it, with the server that will be asked.
    first: Callable[[Three, OneServer], Awaitable[None]] | None = None
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
        PutKey(b"/a", LARGE), asks("PUT", content=LARGE),
        lambda client: client.kv.put("/a", LARGE), ("kv", "put", "k" * 600, "x"),
    ),
    "session-unknown": Case(SessionUnknown, 409, 4, KeepAlive(999)),
    "compacted": Case(
        Compacted, 410, 4,
        GetChanges(b"/", 2, 0, View()), asks("GET", "?watch=true&from=2"),
        lambda client: next(iter(client.kv.watch("/", first=2))), ("kv", "watch", "--from", "2"),
        first=forget,
    ),
    "no-quorum": Case(
        NoQuorum, 503, 3,
        PutKey(b"/a", b""), asks("PUT"),
        lambda client: client.kv.put("/a", b""), ("kv", "put", "/a", "x"),
        first=lose_the_others,
    ),
    "not-leader": Case(NotLeader, 503, 4, KeepAlive(999), leads=False),
    "lagging": Case(
        Lagging, 503, 4,
        GetKey(b"/a", View(seen=Seen("h1", 2**40))), asks("GET", Grampus_Seen=f"h1:{2**40}"),
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
        GetKey(b"/a", View(seen=Seen("h0", 1))), asks("GET", Grampus_Seen="h0:1"), seen("h0:1"),
    ),
    "version-mismatch": Case(
        VersionMismatch, 409, 4,
        PutKey(b"/mark/a", b""), asks("PUT", "/%2Fmark%2Fa"),
        lambda client: client.kv.put("/mark/a", b""), ("kv", "put", "/mark/a", "x"),
    ),
}  # fmt: skip


async def at_the_node_port(ground: Three, server: OneServer, asked: requests.Request) -> object:
    client = ground.client(server)
    line = await client._lines.to(server.address)
    return await client._put_to(line, requests.encode(asked), 10.0)


async def over_http(url: str, asked: Http) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=20.0) as client:
        headers = {"Authorization": f"Bearer {TOKEN}", **asked.headers}
        return await client.request(
            asked.method, asked.path, headers=headers, content=asked.content
        )


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
                with pytest.raises(case.error) as met:
                    await at_the_node_port(ground, server, case.node)
                assert type(met.value) is case.error
                texts.append(str(met.value))
            if case.http is not None:
                answer = await over_http(url, case.http)
                told = answer.json()
                assert (answer.status_code, told["type"]) == (
                    case.status, f"urn:grampus:problem:{kind}"
                )  # fmt: skip
                assert told["title"] == KINDS[kind][1]
                texts.append(told["detail"])
            if case.client is not None:
                with pytest.raises(case.error) as met:
                    await asyncio.to_thread(_with_client, url, case.client)
                assert type(met.value) is case.error
                texts.append(str(met.value))
            if case.command:
                code, said = await by_the_command(url, tmp_path, case.command)
                assert code == case.exit_code, said
                assert "error: " in said
        assert case.error.exit_code == case.exit_code
        assert texts
        assert all(len(text) > 20 for text in texts), texts

    play(tmp_path, scenario)


def _with_client(url: str, ask: Callable[[Client], object]) -> object:
    with Client(url, TOKEN) as client:
        return ask(client)


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
            client.close()
            with Client([other, url], TOKEN) as anew:
                got = await asyncio.to_thread(anew.kv.get, "/a")
                assert got.value == b"1"

    play(tmp_path, scenario)
