"""TLS between nodes: who gets through, who does not, and what is said about it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from pathlib import Path

import pytest
from rpc_peers import (
    CODEC,
    FRAME_LIMIT,
    PATIENCE,
    TOKEN,
    Bytes,
    Come,
    Ear,
    Go,
    Hi,
    Number,
    Spoken,
    greet,
    hung_up,
    line,
    said,
    someone_else,
    spoken,
)
from tls_nodes import CLUSTER, DAY, Nodes, now

from grampus.errors import FolderError, Refused, ServerUnreachable, UsageError
from grampus.rpc.client import connect
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import NodeTls, Tls, pinned_tls, unverified_tls
from grampus.rpc.tls_folder import TlsFolder
from tests.ports import free_port

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    made = Nodes(tmp_path / "a")
    made.server()
    return made


@pytest.fixture
def strange(tmp_path: Path) -> Nodes:
    """Another cluster that says it had the same id."""
    made = Nodes(tmp_path / "b")
    made.server()
    return made


def test_two_nodes_know_each_other_by_their_certificates(nodes: Nodes) -> None:
    seen: list[Subject | None] = []

    def noting(hello: Spoken, peer: str, subject: Subject | None) -> tuple[Spoken, bool, int]:
        seen.append(subject)
        return greet(hello, peer, subject)

    async def scene() -> None:
        server, worker = NodeTls(nodes.server()), NodeTls(nodes.worker())
        async with asyncio.TaskGroup() as tasks:
            listener = Server(CODEC, Ear(), noting, tasks, tls=server)
            await listener.start("127.0.0.1", 0)
            connection, _ = await connect(
                "127.0.0.1", listener.port, CODEC, Ear(), Hi(TOKEN), lambda a: FRAME_LIMIT,
                PATIENCE, tasks=tasks, tls=worker,
            )  # fmt: skip
            assert await connection.request(Bytes(b"x" * 500_000), PATIENCE) == Bytes(
                b"x" * 500_000
            )
            assert connection.subject == server.subject
            assert seen == [worker.subject]
            await listener.close()

    asyncio.run(scene())


def test_what_is_said_cannot_be_read_on_the_way(nodes: Nodes) -> None:
    heard: list[bytes] = []

    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server())) as here:

            async def tap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                there, back = await asyncio.open_connection("127.0.0.1", here.server.port)

                async def pass_on(a: asyncio.StreamReader, b: asyncio.StreamWriter) -> None:
                    while data := await a.read(65536):
                        heard.append(data)
                        b.write(data)
                    b.close()

                async with asyncio.TaskGroup() as both:
                    both.create_task(pass_on(reader, back))
                    both.create_task(pass_on(there, writer))

            async with someone_else(tap, calls=1) as port:
                connection, _ = await connect(
                    "127.0.0.1", port, CODEC, Ear(), Hi(TOKEN), lambda a: FRAME_LIMIT, PATIENCE,
                    tasks=here.tasks, tls=NodeTls(nodes.worker()),
                )  # fmt: skip
                await connection.request(Hi("a secret word"), PATIENCE)
                connection.close("done")
                await connection.wait_closed()

    asyncio.run(scene())
    everything = b"".join(heard)
    assert len(everything) > 1000
    assert TOKEN.encode() not in everything
    assert b"secret" not in everything
    assert b"grampus:" not in everything


CALLED = {
    "a server of another authority": lambda nodes, strange: strange.server(),
    "a server whose certificate names another cluster": lambda nodes, strange: nodes.issue(
        "s2", "server", cluster="cluster-b"
    ),
    "a server whose certificate has expired": lambda nodes, strange: nodes.issue(
        "s2", "server", at=now() - 366 * DAY
    ),
    "a server whose certificate does not hold yet": lambda nodes, strange: nodes.issue(
        "s2", "server", at=now() + DAY
    ),
}
WHY_CALLED = {
    "a server of another authority": "of another authority",
    "a server whose certificate names another cluster": "and this is cluster cluster-a",
    "a server whose certificate has expired": "has expired",
    "a server whose certificate does not hold yet": "the clocks of both machines",
}


@pytest.mark.parametrize("kind", CALLED)
def test_nothing_is_said_to(kind: str, nodes: Nodes, strange: Nodes) -> None:
    """The false server has a listener that accepts everybody, and hears nothing."""
    worker, false = NodeTls(nodes.worker()), NodeTls(CALLED[kind](nodes, strange))
    # It is not choosy: whoever comes may come in.
    assert false.server is not None
    false.server.verify_mode = ssl.CERT_NONE
    heard: list[Spoken] = []

    def listen(hello: Spoken, peer: str, subject: Subject | None) -> tuple[Spoken, bool, int]:
        heard.append(hello)
        return Come("in"), True, FRAME_LIMIT

    async def scene() -> None:
        async with line(greet=listen, tls=false) as here:
            with pytest.raises(ServerUnreachable, match=WHY_CALLED[kind]) as caught:
                await here.call(tls=worker)
            assert f"127.0.0.1:{here.server.port}" in str(caught.value)
            assert here.server.connections == []

    asyncio.run(scene())
    assert heard == []


def test_a_worker_cannot_be_a_server(nodes: Nodes, tmp_path: Path) -> None:
    """Neither by the code, nor by OpenSSL if the code were another, nor by the role."""
    worker = nodes.worker("w2")
    tls = NodeTls(worker)
    assert tls.server is None

    async def by_the_code() -> None:
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(UsageError, match="worker's certificate"):
                await Server(CODEC, Ear(), greet, tasks, tls=tls).start("127.0.0.1", 0)

    asyncio.run(by_the_code())
    forged = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    forged.load_cert_chain(worker.certificate, worker.key)

    async def by_openssl() -> None:
        async with line(tls=Tls(forged, forged, CLUSTER)) as here:
            with pytest.raises(ServerUnreachable, match="a worker's cannot be a server's"):
                await here.call(tls=NodeTls(nodes.worker()))

    asyncio.run(by_openssl())
    client = NodeTls(nodes.worker())
    with pytest.raises(Refused, match="it is worker w2 of cluster cluster-a, not a server"):
        client.callee(_Shown(worker))  # type: ignore[arg-type]


class _Shown:
    """A TLS session in which a certificate was shown and verified."""

    def __init__(self, folder: TlsFolder) -> None:
        self._der = ssl.PEM_cert_to_DER_cert(
            folder.certificate.read_text().split("-----END")[0] + "-----END CERTIFICATE-----"
        )

    def getpeercert(self, binary_form: bool) -> bytes:
        return self._der


CALLERS = {
    "of another authority": (
        lambda nodes, strange: strange.worker(), "of another authority", "its log says why",
    ),
    "of another cluster": (
        lambda nodes, strange: nodes.issue("w9", "worker", cluster="cluster-b"),
        "it is worker w9 of cluster cluster-b, and this is cluster cluster-a",
        "its log says why",
    ),
    "expired": (
        lambda nodes, strange: nodes.issue("w9", "worker", at=now() - 366 * DAY),
        "has expired", "its log says why",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLERS)
def test_a_caller_with_a_bad_certificate_is_not_greeted(
    kind: str, nodes: Nodes, strange: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    make, logged, told = CALLERS[kind]
    # He would talk to anybody, and shows what he has.
    caller = unverified_tls()
    bad = make(nodes, strange)
    caller.client.load_cert_chain(bad.certificate, bad.key)

    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server())) as here:
            friend = await here.call(tls=NodeTls(nodes.worker()))
            caplog.clear()
            with pytest.raises(ServerUnreachable, match=told):
                await here.call(tls=caller)
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            assert len(here.server.connections) == 1

    asyncio.run(scene())
    lines = [r.getMessage() for r in said(caplog) if "127.0.0.1" in r.getMessage()]
    assert any(logged in text for text in lines), lines


def test_a_caller_without_a_certificate_is_a_stranger_to_greet(nodes: Nodes) -> None:
    def only_nodes(hello: Spoken, peer: str, subject: Subject | None) -> tuple[Spoken, bool, int]:
        if subject is None:
            return Go("join first"), False, 0
        return greet(hello, peer, subject)

    async def scene() -> None:
        server = nodes.server()
        async with line(greet=only_nodes, tls=NodeTls(server)) as here:
            for tls in (unverified_tls(), pinned_tls(server.authority_certificate())):
                with pytest.raises(Refused, match="join first"):
                    await here.call(tls=tls)
            await here.call(tls=NodeTls(nodes.worker()))

    asyncio.run(scene())


PLAIN = {
    "a Hello in the clear": spoken(Hi(TOKEN)),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": b"\0" * 5000,
    "a broken handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600,
    "a handshake cut short": b"\x16\x03\x01\x02\x00\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("words", PLAIN)
def test_what_is_no_tls_is_closed_with_one_line_and_disturbs_nobody(
    words: str, nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server()), hello_timeout=0.5) as here:
            friend = await here.call(tls=NodeTls(nodes.worker()))
            reader, writer = await here.stranger()
            name = writer.get_extra_info("sockname")[1]
            writer.write(PLAIN[words])
            answer = await hung_up(reader)
            assert len(answer) < 10  # an alert of TLS, or nothing
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            [record] = [r for r in said(caplog) if f":{name} " in r.getMessage()]
            assert record.levelno == logging.WARNING
            assert "no TLS: " in record.getMessage()
            assert "horse" not in record.getMessage()
            writer.close()

    asyncio.run(scene())


def test_who_fills_the_handshakes_with_silence_holds_up_nobody_from_elsewhere(
    nodes: Nodes,
) -> None:
    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server()), most_strangers=4, hello_timeout=2.0) as here:
            port, loop = here.server.port, asyncio.get_running_loop()
            silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
            begun = loop.time()
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=NodeTls(nodes.worker()).client, local_addr=("127.0.0.2", 0)
            )
            # They do not get on, which is seen after half of their time; then those behind them go
            # at once. Waiting for their turn would have taken 20 times as long.
            assert loop.time() - begun < 2.0
            writer.close()
            for sock in silent:
                sock.close()

    asyncio.run(scene())


def test_who_comes_from_there_is_let_in_when_their_time_is_over(nodes: Nodes) -> None:
    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server()), most_strangers=2, hello_timeout=0.3) as here:
            silent = [socket.create_connection(("127.0.0.1", here.server.port)) for _ in range(5)]

            async def friend() -> Connection[Spoken]:
                while True:
                    with contextlib.suppress(ServerUnreachable):
                        return await here.call(tls=NodeTls(nodes.worker()))

            async with asyncio.timeout(PATIENCE):
                assert await (await friend()).request(Number(1), PATIENCE) == Number(1)
            for sock in silent:
                sock.close()

    asyncio.run(scene())


def test_a_hundred_nodes_that_call_at_once_are_all_greeted(nodes: Nodes) -> None:
    async def scene() -> None:
        worker = NodeTls(nodes.worker())
        async with line(tls=NodeTls(nodes.server())) as here:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(here.call(tls=worker)) for _ in range(100)]
            assert len(here.server.connections) == 100
            answers = [await call.result().request(Number(1), PATIENCE) for call in calls]
            assert answers == [Number(1)] * 100

    asyncio.run(scene())


def test_a_server_that_closes_ends_handshakes_and_frees_the_port(nodes: Nodes) -> None:
    async def scene() -> None:
        tls = NodeTls(nodes.server())
        async with line(tls=tls) as here:
            reader, writer = await here.stranger()
            friend = await here.call(tls=NodeTls(nodes.worker()))
            await here.server.close()
            assert await hung_up(reader) == b""
            await friend.wait_closed()
            again = Server(CODEC, Ear(), greet, here.tasks, tls=tls)
            await again.start("127.0.0.1", here.server.port)
            await again.close()
            writer.close()

    asyncio.run(scene())


def test_tls_on_a_plain_port_is_told_to_both_sides(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with line() as here:
            with pytest.raises(ServerUnreachable, match="does it speak TLS"):
                await here.call(tls=NodeTls(nodes.worker()))

    asyncio.run(scene())
    [record] = said(caplog)
    assert "it speaks TLS, and here nobody does" in record.getMessage()


def test_a_plain_client_of_a_tls_port_is_told_that_nobody_answers(nodes: Nodes) -> None:
    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server())) as here:
            with pytest.raises(ServerUnreachable, match="ended before the Hello was answered"):
                await here.call()

    asyncio.run(scene())


def test_an_older_tls_is_not_spoken(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with line(tls=NodeTls(nodes.server())) as here:
            old = unverified_tls()
            old.client.minimum_version = ssl.TLSVersion.TLSv1_2
            old.client.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(ServerUnreachable, match=r"does it speak TLS 1\.3"):
                await here.call(tls=old)

    asyncio.run(scene())


def test_a_renewed_certificate_is_shown_without_a_restart(nodes: Nodes) -> None:
    async def scene() -> None:
        folder = nodes.issue("s2", "server", at=now() - 300 * DAY)
        server, worker = NodeTls(folder), NodeTls(nodes.worker())
        async with line(tls=server) as here:
            old = await here.call(tls=worker)
            before = _shown(old)
            folder.renew(
                nodes.folder("s1")
                .authority()
                .issue(folder.request(), CLUSTER, "server", "s2", [], now()),
                now(),
            )
            server.reload()
            new = await here.call(tls=worker)
            assert _shown(new) != before
            assert new.subject == old.subject
            # Nothing happens to those that stand.
            assert await old.request(Number(1), PATIENCE) == Number(1)

    asyncio.run(scene())


def _shown(connection: Connection[Spoken]) -> bytes:
    transport = connection._transport
    assert transport is not None
    session: ssl.SSLObject = transport.get_extra_info("ssl_object")
    certificate = session.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_a_folder_that_does_not_fit_is_one_clear_line(nodes: Nodes) -> None:
    worker = nodes.worker()
    worker.key.write_bytes(nodes.worker("w2").key.read_bytes())
    with pytest.raises(FolderError, match="is not for the key in"):
        NodeTls(worker)
    worker.certificate.write_text("garbage")
    with pytest.raises(FolderError, match=r"node\.pem is damaged"):
        NodeTls(worker)
    worker.certificate.unlink()
    with pytest.raises(FolderError, match=r"node\.pem is missing"):
        NodeTls(worker)


def test_nobody_at_the_address_is_told_as_without_tls(nodes: Nodes) -> None:
    async def scene() -> None:
        worker = NodeTls(nodes.worker())
        port = free_port()
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(ServerUnreachable, match=f":{port}: Connection refused$"):
                await connect(
                    "127.0.0.1", port, CODEC, Ear(), Hi(TOKEN), lambda a: FRAME_LIMIT, PATIENCE,
                    tasks=tasks, tls=worker,
                )  # fmt: skip

    asyncio.run(scene())
