"""Joining a cluster with a token, over real sockets: who gets in, and to whom nothing is told."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from join_ground import CLUSTER, SERVER_SECRET, Host, founded, host

from grampus.cluster import join_desk, tokens
from grampus.cluster.credentials import read_credentials
from grampus.cluster.join_token import JoinToken, secret_hash
from grampus.cluster.joining import Newcomer, join
from grampus.cluster.renewing import by_server
from grampus.cluster.token_commands import RevokeWorker, UseToken
from grampus.consensus.members import REMOVED
from grampus.errors import FolderError, Refused, ServerUnreachable, Unauthorized, UsageError
from grampus.protocol import (
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    AuthorityIs,
    GetAuthority,
    Goodbye,
    Hello,
    Join,
    Joined,
    Message,
    Renew,
    Renewed,
    Sync,
    Welcome,
)
from grampus.rpc.certificates import certificate_request, new_key, request_key
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.renewal import FIRST_RETRY, LOOK, Renewal
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import NodeTls, Tls, Untrusted, pinned_tls, unverified_tls
from grampus.rpc.tls_folder import TlsFolder

pytestmark = pytest.mark.timeout(60)

ENTROPY = b"e" * 32
Peer = Connection[Message]


class Quiet:
    """The handler of a caller."""

    def messages(self, connection: Peer, batch: list[Message]) -> None: ...

    async def request(self, connection: Peer, message: Message) -> Message:
        return message

    def closed(self, connection: Peer, reason: str) -> None: ...


async def call(
    here: Host, role: str, name: str, tls: Tls | None = None, credential: str = ""
) -> Peer:
    """A greeted connection, or Refused with the reason. Its tasks are the host's."""

    def accept(answer: Message) -> int:
        if isinstance(answer, Goodbye):
            raise Refused(answer.reason)
        return 1 << 19

    hello = Hello(PROTOCOL_VERSION, "control", role, name, CLUSTER, credential)
    connection, _ = await connect(
        "127.0.0.1", here.server.port, Codec[Message](Message), Quiet(), hello, accept,
        HELLO_TIMEOUT, tasks=here.server._tasks, tls=tls,
    )  # fmt: skip
    return connection


def newcomer(path: Path, role: str, name: str) -> Newcomer:
    data = path / name
    data.mkdir(exist_ok=True)
    return Newcomer(data, role, name, "127.0.0.1:9471", ("node.example.org",))


async def joining(here: Host, token: JoinToken, who: Newcomer) -> Joined:
    return await join([("127.0.0.1", here.server.port)], token, who, ENTROPY)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene()

    asyncio.run(main())


@pytest.fixture
def folder(tmp_path: Path) -> TlsFolder:
    return founded(tmp_path / "s1")


def test_a_worker_joins_and_comes_in_by_its_certificate(folder: TlsFolder, tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "worker", "w1")
            joined = await joining(here, here.token("worker"), who)
            assert (joined.cluster, joined.history) == (CLUSTER, "history")
            assert joined.servers == ("127.0.0.1:8471",)
            assert joined.ca_key == b""
            assert joined.credential == ""
            tls = NodeTls(TlsFolder(who.data))
            assert tls.subject.uri == f"grampus:{CLUSTER}/worker/w1"
            await call(here, "worker", "w1", tls)
            for role, name in (("server", "w1"), ("worker", "w2")):
                with pytest.raises(Refused, match="the certificate is for worker w1"):
                    await call(here, role, name, tls)
            assert {p.name for p in (who.data / "tls").iterdir()} == {
                "ca.pem", "node.pem", "node-key.pem",
            }  # fmt: skip

    run(scene)


def test_a_server_joins_and_can_let_others_join(folder: TlsFolder, tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "server", "s2")
            await joining(here, here.token("server"), who)
            second = TlsFolder(who.data)
            assert stat.S_IMODE((second.path / "ca-key.pem").stat().st_mode) == 0o600
            assert second.authority().hash == folder.authority().hash
            await call(here, "server", "s2", NodeTls(second))
            # And callers trust it as a server.
            async with host(second) as there:
                await call(there, "server", "s1", NodeTls(folder))

    run(scene)


def test_a_token_is_used_once_and_a_lost_answer_is_asked_for_again(
    folder: TlsFolder, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            token, who = here.token("worker"), newcomer(tmp_path, "worker", "w1")
            await joining(here, token, who)
            with pytest.raises(Unauthorized, match="was used by w1"):
                await joining(here, token, newcomer(tmp_path, "worker", "w2"))
            # As if it had crashed before the certificate came.
            TlsFolder(who.data).certificate.unlink()
            await joining(here, token, who)
            await call(here, "worker", "w1", NodeTls(TlsFolder(who.data)))

    run(scene)


def test_what_a_token_does_not_allow_is_refused_with_the_reason(
    folder: TlsFolder, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "worker", "w1")
            expired = here.token("worker", life=0)
            with pytest.raises(Unauthorized, match="has expired"):
                await joining(here, expired, who)
            for_server = here.token("server", number=2)
            with pytest.raises(Refused, match="is for a server"):
                await joining(here, for_server, who)
            unknown = JoinToken(expired.authority, "a" * 12, expired.secret)
            with pytest.raises(Unauthorized, match="not known here"):
                await joining(here, unknown, who)
            here.proposals.clear()
            wrong = JoinToken(for_server.authority, for_server.id, "a" * 52)
            with pytest.raises(Unauthorized, match="not known here"):
                await joining(here, wrong, newcomer(tmp_path, "server", "s2"))
            # What is only guessed does not reach the log.
            assert here.proposals == []
            assert not TlsFolder(who.data).ready

    run(scene)


def test_a_removed_worker_is_not_let_in_again(folder: TlsFolder, tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who, token = newcomer(tmp_path, "worker", "w1"), here.token("worker")
            await joining(here, token, who)
            here.apply(RevokeWorker(1, "w1"))
            own = TlsFolder(who.data)
            # Nor by the door for those who join.
            joins = await call(here, "join", "w1", NodeTls(own))
            with pytest.raises(Refused, match="who has come in by it"):
                await joins.request(Renew(own.request()), 5)
            with pytest.raises(Refused, match="was removed"):
                await call(here, "worker", "w1", NodeTls(TlsFolder(who.data)))
            with pytest.raises(Refused, match="was removed"):
                await joining(here, token, who)

    run(scene)


def test_a_server_of_another_cluster_is_told_nothing(folder: TlsFolder, tmp_path: Path) -> None:
    strange = founded(tmp_path / "strange")

    async def scene() -> None:
        async with host(folder) as real, host(strange) as false:
            heard = _heard(false)
            token = real.token("worker")
            with pytest.raises(Untrusted, match="the token was not told to it"):
                await joining(false, token, newcomer(tmp_path, "worker", "w1"))
            assert [type(m) for m in heard] == [GetAuthority]
            assert false.proposals == []

    run(scene)


@pytest.mark.parametrize("first", ["the real one", "its own"])
def test_a_false_server_that_shows_the_real_authority_is_told_nothing(
    first: str, folder: TlsFolder, tmp_path: Path
) -> None:
    """It passes the authority's certificate on, with its own beside, but cannot be one of its
    servers."""
    strange = founded(tmp_path / "strange")
    both = [folder.authority_certificate(), strange.authority_certificate()]

    async def scene() -> None:
        async with host(folder) as real, host(strange) as false:
            shown = b"".join(both if first == "the real one" else reversed(both))
            heard = _heard(false, AuthorityIs(shown))
            with pytest.raises((ServerUnreachable, Untrusted)) as caught:
                await joining(false, real.token("worker"), newcomer(tmp_path, "worker", "w1"))
            if first == "the real one":
                assert "of another authority" in str(caught.value)
            assert [type(m) for m in heard] == [GetAuthority]

    run(scene)


@pytest.mark.parametrize("shown", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_server_without_an_authority_is_told_nothing(
    shown: bytes, folder: TlsFolder, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            heard = _heard(here, AuthorityIs(shown))
            with pytest.raises(Untrusted, match="shows no authority"):
                await joining(here, here.token("worker"), newcomer(tmp_path, "worker", "w1"))
            assert [type(m) for m in heard] == [GetAuthority]

    run(scene)


def _heard(here: Host, authority: Message | None = None) -> list[Message]:
    """What is asked of the host from now on; GetAuthority is answered by `authority`."""
    heard: list[Message] = []
    answer = here.desk.request

    async def request(connection: Peer, message: Message) -> Message:
        heard.append(message)
        if authority is not None and isinstance(message, GetAuthority):
            return authority
        return await answer(connection, message)

    here.desk.request = request  # type: ignore[method-assign]
    return heard


def test_a_worker_of_the_cluster_cannot_pose_as_a_server(folder: TlsFolder, tmp_path: Path) -> None:
    """It has a certificate of the authority, but for calling only."""

    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "worker", "w1")
            await joining(here, here.token("worker"), who)
            false = NodeTls(TlsFolder(who.data))
            forged = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            forged.load_cert_chain(TlsFolder(who.data).certificate, TlsFolder(who.data).key)
            heard: list[Message] = []

            def greet(
                hello: Message, peer: str, subject: Subject | None
            ) -> tuple[Message, bool, int]:
                return Welcome(PROTOCOL_VERSION, "s1", CLUSTER), True, 1 << 15

            class Thief(Quiet):
                async def request(self, connection: Peer, message: Message) -> Message:
                    heard.append(message)
                    return AuthorityIs(folder.authority_certificate())

            server = Server(
                Codec[Message](Message), Thief(), greet, here.server._tasks,
                tls=Tls(false.client, forged, CLUSTER),
            )  # fmt: skip
            await server.start("127.0.0.1", 0)
            victim = newcomer(tmp_path, "worker", "w2")
            with pytest.raises(ServerUnreachable, match="a worker's cannot be a server's"):
                await join(
                    [("127.0.0.1", server.port)], here.token("worker", number=2), victim, ENTROPY
                )
            await server.close()
            assert [type(m) for m in heard] == [GetAuthority]

    run(scene)


def test_a_stranger_may_ask_for_nothing_but_to_join(folder: TlsFolder) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            with pytest.raises(Refused, match="no certificate"):
                await call(here, "worker", "w1", unverified_tls())
            stranger = await call(here, "join", "w1", pinned_tls(folder.authority_certificate()))
            for question in (Sync(1, 1, 1, [], []), Welcome(1, "", "")):
                with pytest.raises(Refused, match="asks for nothing else"):
                    await stranger.request(question, 5)
            with pytest.raises(Refused, match="only who has shown a certificate"):
                await stranger.request(Renew(b""), 5)
            assert isinstance(await stranger.request(GetAuthority(), 5), AuthorityIs)
            stranger.send(Sync(1, 1, 1, [], []))
            await stranger.wait_closed()

    run(scene)


def test_few_join_at_a_time_and_not_for_long(
    folder: TlsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_desk, "MOST_JOINING", 2)
    monkeypatch.setattr(join_desk, "JOIN_TIMEOUT", 0.3)

    async def scene() -> None:
        async with host(folder) as here:
            waiting = [await call(here, "join", "w", unverified_tls()) for _ in range(12)]
            for connection in waiting[:10]:
                assert "closed" in await connection.wait_closed()
            # The first made room: who comes and says at once what he wants gets it.
            assert not any(connection.closed for connection in waiting[10:])
            newest = await call(here, "join", "w", unverified_tls())
            assert isinstance(await newest.request(GetAuthority(), 5), AuthorityIs)
            for connection in (*waiting, newest):
                await connection.wait_closed()

    run(scene)


BAD_JOINS: dict[str, Callable[[Join], Join]] = {
    "a name that could be another": lambda j: _with(j, name="../server/s1"),
    "a role that does not exist": lambda j: _with(j, role="admin"),
    "the key of somebody else": lambda j: _with(j, key="ab" * 32),
    "a request of garbage": lambda j: _with(j, request=b"garbage"),
    "no request": lambda j: _with(j, request=b""),
    "another version": lambda j: _with(j, version=99),
    "a host that is none": lambda j: _with(j, hosts=("a b",)),
}


def _with(join: Join, **changes: object) -> Join:
    fields = {name: getattr(join, name) for name in Join.__struct_fields__}
    return Join(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", BAD_JOINS)
def test_a_bad_join_is_refused_before_the_token_is_spent(kind: str, folder: TlsFolder) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            token = here.token("server")
            request = certificate_request(new_key())
            good = Join(
                PROTOCOL_VERSION, token.id, token.secret, "server", "s2", "", (), request,
                request_key(request),
            )  # fmt: skip
            caller = await call(here, "join", "s2", pinned_tls(folder.authority_certificate()))
            with pytest.raises((Refused, UsageError)):
                await caller.request(BAD_JOINS[kind](good), 5)
            assert here.proposals == []
            assert isinstance(await caller.request(good, 5), Joined)

    run(scene)


def test_a_folder_with_the_key_of_a_removed_server_spends_no_token(
    folder: TlsFolder, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "server", "s2")
            key = request_key(TlsFolder(who.data).request())
            here.desk._void = {key: REMOVED}.get  # type: ignore[assignment]
            with pytest.raises(Refused, match="empty its folder"):
                await joining(here, here.token("server"), who)
            assert here.proposals == []
            shutil.rmtree(who.data / "tls")
            await joining(here, here.token("server"), who)

    run(scene)


def test_a_certificate_is_renewed_for_its_bearer_only(folder: TlsFolder, tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "worker", "w1")
            await joining(here, here.token("worker"), who)
            own = TlsFolder(who.data)
            tls = NodeTls(own)
            worker = await call(here, "worker", "w1", tls)
            renewed = await worker.request(Renew(own.request()), 5)
            assert isinstance(renewed, Renewed)
            before = own.certificate.read_bytes()
            own.renew(renewed.certificate, here.clock.now())
            assert own.certificate.read_bytes() != before
            tls.reload()
            await call(here, "worker", "w1", tls)
            with pytest.raises(Refused, match="for the key that it was issued for"):
                await worker.request(Renew(certificate_request(new_key())), 5)

    run(scene)


def test_a_worker_keeps_its_certificate_when_a_server_has_become_one_of_another_cluster(
    folder: TlsFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection stands from before; what is issued over it is of an authority that is not the
    worker's."""

    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "worker", "w1")
            await joining(here, here.token("worker"), who)
            own = TlsFolder(who.data)
            tls = NodeTls(own)
            line, before = await call(here, "worker", "w1", tls), own.certificate.read_bytes()
            soon = Soon(own.renewal_due())
            renewal = Renewal(own, by_server(line.request), tls.reload, soon)
            here.desk._tls = founded(tmp_path / "strange")
            assert await renewal.look() == FIRST_RETRY
            assert own.certificate.read_bytes() == before
            assert "compare tls/ca.pem on all servers" in caplog.text
            await call(here, "worker", "w1", tls)
            here.clock, here.desk._tls, here.desk._clock = soon, folder, soon
            assert await renewal.look() == LOOK
            assert own.certificate.read_bytes() != before
            assert stat.S_IMODE(own.certificate.stat().st_mode) == 0o600

    run(scene)


class Soon:
    """A Clock of the day on which a certificate is renewed."""

    def __init__(self, time: int) -> None:
        self._time = time

    def now(self) -> int:
        return self._time

    def ticks(self) -> int:
        return self._time


# ---- without TLS, on loopback


def test_without_tls_servers_share_a_secret_and_workers_have_their_own(tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(None) as here:
            token = here.token("worker")
            assert token.text.startswith("grampus-join.plain.")
            worker = newcomer(tmp_path, "worker", "w1")
            joined = await joining(here, token, worker)
            assert joined.credential == ""
            own = read_credentials(worker.data)
            assert own.server == ""
            assert tokens.worker_key(here.ledger.database, "w1") == secret_hash(own.worker)
            await call(here, "worker", "w1", credential=own.worker)
            with pytest.raises(Refused, match="wrong credential"):
                await call(here, "server", "w1", credential=own.worker)
            with pytest.raises(Refused, match="was removed"):
                await call(here, "worker", "w2", credential=own.worker)
            server = newcomer(tmp_path, "server", "s2")
            await joining(here, here.token("server", number=2), server)
            shown = read_credentials(server.data).server
            assert shown == SERVER_SECRET
            await call(here, "server", "s2", credential=shown)
            assert not (server.data / "tls").exists()

    run(scene)


def test_without_tls_a_lost_answer_is_asked_for_again_with_the_same_credential(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with host(None) as here:
            token, who = here.token("worker"), newcomer(tmp_path, "worker", "w1")
            await joining(here, token, who)
            first = read_credentials(who.data)
            await join([("127.0.0.1", here.server.port)], token, who, b"f" * 32)
            assert read_credentials(who.data) == first

    run(scene)


def test_a_plain_token_is_never_told_over_a_network(tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(None) as here:
            token, who = here.token("worker"), newcomer(tmp_path, "worker", "w1")
            with pytest.raises(UsageError, match="not encrypted"):
                await join([("192.0.2.1", 8471)], token, who, ENTROPY)

    run(scene)


def test_a_token_of_the_other_kind_is_refused_and_not_told(
    folder: TlsFolder, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with host(None) as plain, host(folder) as encrypted:
            who = newcomer(tmp_path, "worker", "w1")
            with pytest.raises(ServerUnreachable, match="does it speak TLS"):
                await joining(plain, encrypted.token("worker"), who)
            with pytest.raises(ServerUnreachable, match="ended before the Hello was answered"):
                await joining(encrypted, plain.token("worker"), who)
            assert plain.proposals == encrypted.proposals == []

    run(scene)


def test_the_next_server_is_tried_and_all_that_was_tried_is_told(
    folder: TlsFolder, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            token, who = here.token("worker"), newcomer(tmp_path, "worker", "w1")
            nobody = ("127.0.0.1", 2)
            # The address that was typed; and where nodes are answered, which nobody typed.
            told = r"\n  127\.0\.0\.1:1: no server answers at 127\.0\.0\.1:2: "
            with pytest.raises(ServerUnreachable, match=told):
                await join([nobody], token, who, ENTROPY)
            await join([nobody, ("127.0.0.1", here.server.port)], token, who, ENTROPY)

    run(scene)


def test_a_folder_of_another_cluster_does_not_join(folder: TlsFolder, tmp_path: Path) -> None:
    async def scene() -> None:
        async with host(folder) as here:
            who = newcomer(tmp_path, "worker", "w1")
            await joining(here, here.token("worker"), who)
            async with host(founded(tmp_path / "strange")) as there:
                with pytest.raises(FolderError, match="another authority than the folder's"):
                    await joining(there, there.token("worker", number=2), who)

    run(scene)


def test_no_secret_is_logged(
    folder: TlsFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scene() -> None:
        for where in (folder, None):
            async with host(where) as here:
                token = here.token("server")
                who = newcomer(tmp_path, "server", "s2" if where else "s3")
                await joining(here, token, who)
                with pytest.raises(Refused):
                    await joining(here, token, newcomer(tmp_path, "server", "s4"))
                with pytest.raises(Refused):
                    await call(
                        here, "server", "s9", unverified_tls() if where else None, token.secret
                    )
                assert token.secret not in caplog.text

    run(scene)
    assert SERVER_SECRET not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
    assert UseToken.__name__ not in caplog.text
