"""What a certificate is worth whose bearer was removed: under any id, name and role."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cluster_holders import grow
from test_tls import HOST, Place, cluster

from grampus.cluster.admission import JOIN
from grampus.cluster.join_token import parse
from grampus.cluster.joining import Newcomer, join
from grampus.errors import GrampusError, Refused
from grampus.model.member import Member
from grampus.protocol import (
    CONTROL_FRAME,
    PROTOCOL_VERSION,
    ClusterAsk,
    GetBlob,
    Goodbye,
    Hello,
    Message,
    Propose,
    ReadIndex,
    Welcome,
)
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.tls import NodeTls, Tls
from grampus.rpc.tls_folder import TlsFolder
from tests.acceptance.node import PATIENCE, Ground

#: Seconds.
GOODBYE = 0.5
pytest.importorskip("grampus_raft")
pytestmark = pytest.mark.timeout(180)


class Quiet:
    def messages(self, connection: Connection[Message], batch: list[Message]) -> None:
        return

    async def request(self, connection: Connection[Message], message: Message) -> Message:
        raise Refused("nothing is answered here")

    def closed(self, connection: Connection[Message], reason: str) -> None:
        return


def _accept(answer: Message) -> int:
    if isinstance(answer, Goodbye):
        raise Refused(answer.reason)
    assert isinstance(answer, Welcome)
    return CONTROL_FRAME


def knock(loop: asyncio.Runner, port: int, hello: Hello, tls: Tls, *asks: Message) -> list[str]:
    """What is said to it at the door, or to each question; "" for an answer."""

    async def go() -> list[str]:
        told = []
        async with asyncio.TaskGroup() as tasks:
            try:
                line, _ = await connect(
                    HOST, port, Codec[Message](Message), Quiet(), hello, _accept, PATIENCE,
                    tasks=tasks, tls=tls,
                )  # fmt: skip
            except Refused as error:
                return [str(error)]
            for asked in asks:
                try:
                    told.append(repr(await line.request(asked, PATIENCE)))
                except GrampusError as error:
                    told.append(str(error))
            line.close("this was all")
            await line.wait_closed()
        return told

    return loop.run(go())


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """Whoever was refused is still saying goodbye to TLS when that is told, so they share a loop
    that outlives them."""
    with asyncio.Runner() as runner:
        yield runner
        runner.run(asyncio.sleep(GOODBYE))


def test_the_certificate_of_a_removed_server_opens_no_door(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    with cluster(Ground(tmp_path)) as place:
        grow(place)
        history, known = status(place)
        me, other = known["s3"], known["s1"]
        assert place.ask("cluster", "remove", "s3", "--yes").returncode == 0
        gone = place.running.pop("s3")
        assert gone.wait(PATIENCE) == 4
        assert "removed from the cluster" in place.log("s3").splitlines()[-1]
        tls = NodeTls(TlsFolder(place.folder("s3")))
        new = Member(7, "s3", HOST, me.port, me.node_port, me.key)
        cases = [
            ("server", "s3", me.id, me, "was removed"),
            ("server", "s3", 7, new, "was removed"),
            ("server", "s3", 0, None, "was removed"),
            ("server", "s3", other.id, other, "was removed"),
            ("server", "s1", other.id, other, "the certificate is for server s3"),
            ("worker", "s3", 0, None, "the certificate is for server s3"),
            ("worker", "w1", 0, None, "the certificate is for server s3"),
        ]
        for name in ("s1", "s2"):
            for lane in ("control", "bulk", "keys"):
                for role, node, id, listens, why in cases:
                    hello = Hello(
                        PROTOCOL_VERSION, lane, role, node, tls.subject.cluster, "", history,
                        id, listens, 1,
                    )  # fmt: skip
                    (told,) = knock(loop, place.ports[name] + 1, hello, tls)
                    assert why in told, (name, lane, role, node, id, told)
        _who_joins_anew_does_so_with_a_new_key(loop, place, history)


def status(place: Place) -> tuple[str, dict[str, Member]]:
    """The history, and the members by name, as the ledger has them."""
    info = json.loads(place.ask("cluster", "status", "-o", "json").stdout)
    known = {}
    for line in info["members"]:
        name = line["name"]
        port, key = place.ports[name], NodeTls(TlsFolder(place.folder(name))).subject.key
        known[name] = Member(int(line["id"], 16), name, HOST, port, port + 1, key)
    return info["history"], known


def _who_joins_anew_does_so_with_a_new_key(
    loop: asyncio.Runner, place: Place, history: str
) -> None:
    token = place.token("server")
    folder = place.ground.folder / "again"
    folder.mkdir()
    shutil.copytree(place.folder("s3") / "tls", folder / "tls")
    who = Newcomer(folder, "server", "s3", f"{HOST}:{place.ports['s3'] + 1}", (), 1)
    servers = [(HOST, place.ports["s1"] + 1)]

    async def go() -> None:
        await join(servers, parse(token.read_text()), who, b"e" * 32)

    with pytest.raises(Refused, match="empty its folder"):
        loop.run(go())
    shutil.rmtree(folder / "tls")
    loop.run(go())
    # It has a certificate; what it may ask for before it is admitted is that alone.
    tls = NodeTls(TlsFolder(folder))
    me = Member(9, "s3", HOST, place.ports["s3"], place.ports["s3"] + 1, tls.subject.key)
    hello = Hello(
        PROTOCOL_VERSION, "control", "server", "s3", tls.subject.cluster, "", history, 9, me, 1
    )
    told = knock(
        loop, place.ports["s1"] + 1, hello, tls,
        Propose([b"x"]), ReadIndex(), ClusterAsk("remove", "s1"), GetBlob("0" * 64, 0),
        ClusterAsk("admit", member=Member(8, "s8", HOST, 1, 2)),
    )  # fmt: skip
    assert "not-leader" in told[0]
    assert told[1] == "ReadIndexed(index=0)"
    assert all("is no member of this cluster" in text for text in told[2:]), told
    assert place.members("s1", "role", "voter") == ["s1", "s2"]


def test_the_certificate_of_a_worker_is_for_that_worker(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    """Beside it, and after it was removed."""
    with cluster(Ground(tmp_path)) as place:
        place.server("s1", "--init")
        place.ready("s1")
        token = place.token("worker")
        place.start("worker", "w1", "--join", place.address("s1"), "--token-file", str(token))
        place.ready("w1")
        tls = NodeTls(TlsFolder(place.folder("w1")))
        port = place.ports["s1"] + 1

        def told(role: str, name: str, lane: str) -> str:
            hello = Hello(PROTOCOL_VERSION, lane, role, name, tls.subject.cluster, "")
            return "".join(knock(loop, port, hello, tls))

        for lane in ("control", "bulk", "keys"):
            assert told("worker", "w1", lane) == ""
            for role, name in (("worker", "w2"), ("worker", "s1"), ("server", "w1")):
                assert "the certificate is for worker w1" in told(role, name, lane)
        assert place.ask("worker", "remove", "w1", "--yes").returncode == 0
        for lane in ("control", "bulk", "keys"):
            assert "was removed" in told("worker", "w1", lane)
            assert "the certificate is for worker w1" in told("worker", "w2", lane)
        assert told(JOIN, "w1", "control") == ""  # a stranger may, and a token says who he is
