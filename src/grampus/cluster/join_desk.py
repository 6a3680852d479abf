"""The server's side of joining and of renewal. Who asks may be anybody.

Rules. A stranger may ask for the authority's certificate and show a join token, and nothing else;
few are heard at a time, each for a short while, and nobody takes all of the room. The token is
looked up before anything is proposed, so that a stranger writes nothing into the log. What is
issued names the caller as the token or the certificate allows, never as the request says.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence

from grampus.clock import Clock
from grampus.cluster.join_token import secret_hash
from grampus.cluster.refusal import Refusal
from grampus.cluster.token_commands import UseToken
from grampus.cluster.tokens import TokenRow
from grampus.errors import (
    InvalidInput,
    Problem,
    ProtocolError,
    Refused,
    Unauthorized,
    VersionMismatch,
)
from grampus.protocol import (
    AuthorityIs,
    GetAuthority,
    Hello,
    Join,
    Joined,
    Message,
    Renew,
    Renewed,
    not_spoken,
)
from grampus.rpc.certificates import request_key
from grampus.rpc.connection import Connection
from grampus.rpc.crowd import Crowd
from grampus.rpc.subject import ROLES, SERVER, read_subject
from grampus.rpc.tls_folder import TlsFolder

#: Longest frame of a connection that joins, in bytes.
JOIN_FRAME = 32 * 1024
#: How many may be joining at a time, and for how many seconds each.
MOST_JOINING = 32
JOIN_TIMEOUT = 15.0

Peer = Connection[Message]


class JoinDesk:
    """One per server. It is given the connections whose Hello says `join`, and the renewals of all
    others."""

    def __init__(
        self,
        cluster: str,
        history: str,
        *,
        tls: TlsFolder | None,
        server_secret: str,
        propose: Callable[[UseToken], Awaitable[object]],
        find_token: Callable[[str], Awaitable[TokenRow | None]],
        servers: Callable[[], Sequence[str]],
        clock: Clock,
        void: Callable[[str], str] = lambda key: "",
    ) -> None:
        """`find_token` reads the ledger as it is after a read barrier. `servers` are the addresses
        that nodes may try. Without `tls`, servers show `server_secret`. `void` says why the key of
        a server counts for nothing any more, or ""."""
        self._cluster = cluster
        self._history = history
        self._tls = tls
        self._server_secret = server_secret
        self._propose = propose
        self._find_token = find_token
        self._servers = servers
        self._clock = clock
        self._void = void
        self._joining: dict[Peer, asyncio.TimerHandle] = {}
        self._crowd: Crowd[Peer] = Crowd()
        #: Somebody had to go for want of room, and there was none since.
        self._crowded = False

    # ---- connections that join

    def opened(self, connection: Peer) -> None:
        """For one too many he goes who is at it for longest, of those from where most come. An
        honest one takes moments."""
        loop = asyncio.get_running_loop()
        self._joining[connection] = loop.call_later(
            JOIN_TIMEOUT, connection.close, f"it has not joined within {JOIN_TIMEOUT:g} s"
        )
        self._crowd.come(connection, connection.host, loop.time())
        if len(self._crowd) <= MOST_JOINING:
            self._crowded = False
            return
        last = self._crowd.who_goes()
        self._crowd.gone(last)
        last.drop(f"{MOST_JOINING} others are joining", told=not self._crowded)
        self._crowded = True

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        raise ProtocolError("whoever joins has nothing else to say")

    async def request(self, connection: Peer, message: Message) -> Message:
        match message:
            case GetAuthority():
                return AuthorityIs(b"" if self._tls is None else self._tls.authority_certificate())
            case Join():
                return await self._join(message)
            case _:
                raise Refused("whoever joins asks for nothing else: show your certificate")

    def closed(self, connection: Peer, reason: str) -> None:
        self._crowd.gone(connection)
        if (timer := self._joining.pop(connection, None)) is not None:
            timer.cancel()

    # ---- what is asked

    async def _join(self, join: Join) -> Message:
        self._check(join)
        hashed = secret_hash(join.secret)
        row = await self._find_token(join.token)
        if row is None or not hmac.compare_digest(row.hash, hashed):
            raise Unauthorized(
                "this join token is not known here, or has been removed: make another one on a"
                " server"
            )
        # Made before the token is spent, for it may be impossible; given away after.
        joined = self._joined(join)
        answer = await self._propose(
            UseToken(self._clock.now(), join.token, hashed, join.role, join.name, join.key)
        )
        if isinstance(answer, Refusal):
            spent = answer.code in ("no-token", "used", "expired")
            raise (Unauthorized if spent else Refused)(answer.reason)
        return joined

    def _check(self, join: Join) -> None:
        if why := not_spoken(join.version):
            raise VersionMismatch(why)
        uri = f"grampus:{self._cluster}/{join.role}/{join.name}"
        if join.role not in ROLES or read_subject(uri, "") is None:
            raise InvalidInput([Problem("no node can have this role and name")])
        if self._tls is not None and request_key(join.request) != join.key:
            raise InvalidInput([Problem("the key is not that of the request for a certificate")])
        if join.role == SERVER and (why := self._void(join.key)):
            raise Refused(why)
        if self._tls is None and (join.request or len(join.key) != 64):
            raise Refused("this cluster has no TLS: its join tokens begin with grampus-join.plain")

    def _joined(self, join: Join) -> Joined:
        serves = join.role == SERVER
        credential, certificate, ca, ca_key = "", b"", b"", b""
        if self._tls is None:
            credential = self._server_secret if serves else ""
        else:
            authority = self._tls.authority()
            ca = authority.pem
            ca_key = self._tls.authority_key() if serves else b""
            certificate = authority.issue(
                join.request, self._cluster, join.role, join.name, join.hosts, self._clock.now()
            )
        return Joined(
            self._cluster, self._history, credential, certificate, ca, ca_key,
            tuple(self._servers()),
        )  # fmt: skip

    def renew(self, connection: Peer, message: Renew) -> Renewed:
        """A new certificate for the bearer of the old one: same name, role and key.

        Raises Refused, and InvalidInput."""
        subject, hello = connection.subject, connection.greeting
        if self._tls is None or subject is None:
            raise Refused("only who has shown a certificate may have it renewed")
        if not isinstance(hello, Hello) or hello.role != subject.role:
            # Who only joins was not looked at by `Admission`: he may have been removed.
            raise Refused("a certificate is renewed for who has come in by it")
        if request_key(message.request) != subject.key:
            raise Refused("a certificate is renewed for the key that it was issued for")
        return Renewed(
            self._tls.authority().issue(
                message.request, self._cluster, subject.role, subject.name, message.hosts,
                self._clock.now(),
            )
        )  # fmt: skip
