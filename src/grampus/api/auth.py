"""The gate in front of every route: the right host, cluster and token, not too many at once.

Rule: nothing of the application runs for a request that the gate turns away, and an address that
does not exist is not told from one that does. There is no CORS: a web page of another origin gets
no answer, and the check of `Host` keeps it from reaching a loopback server by a name of its own.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grampus.api.problems import address, problem
from grampus.api.staleness import header
from grampus.loopback import is_own

#: Answered without a token: they tell nothing but that the server lives and what it speaks.
OPEN = frozenset({"/", "/healthz", "/readyz", "/api/v1/openapi.json"})
#: Requests that may be under way at once, streams included.
MOST_REQUESTS = 512
#: Which cluster is meant, in a request that says so; and which this one is, in an answer.
CLUSTER = "Grampus-Cluster"
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


def hosts_of(listen: str) -> frozenset[str] | None:
    """The names by which clients may call a server that listens at `listen`; None is any.

    Only a loopback server is strict: what a network calls a machine is not known to it."""
    host = listen.strip("[]").lower()
    return frozenset({"localhost", "127.0.0.1", "::1", host}) if is_own(host) else None


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        hosts: frozenset[str] | None,
        token_file: str | None,
        cluster: str = "",
    ) -> None:
        """`token_file` is told to whom comes without a valid token: where it can be found.
        `cluster` is the id of this server's."""
        self._cluster = cluster
        self._told = [*_HEADERS, (CLUSTER.lower().encode(), cluster.encode())]
        self._app = app
        self._token = token.encode()
        self._hosts = hosts
        place = f"; this server's is in {token_file}" if token_file else ""
        self._missing = f"send `Authorization: Bearer <token>`{place}"
        self._wrong = f"that is not the token of this server{place}"
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # No web sockets here; the server is told so by the closed door.
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        more = _HEADERS

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more, *header(scope)]
            await send(message)

        if turned_away := self._refuse(scope):
            kind, detail, headers = turned_away
            response = problem(kind, detail, address(scope), headers=headers)
            await response(scope, receive, guarded)
            return
        if self._cluster and scope["path"] not in OPEN:
            more = self._told
        self._under_way += 1
        try:
            await self._app(scope, receive, guarded)
        finally:
            self._under_way -= 1

    def _refuse(self, scope: Scope) -> tuple[str, str, dict[str, str]] | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            return "misdirected", "this server answers only to the names of its own machine", {}
        if scope["path"] in OPEN:
            return None
        given = headers.get("authorization", "")
        if not self._may(given):
            detail = self._wrong if given else self._missing
            return "unauthorized", detail, {"WWW-Authenticate": "Bearer"}
        meant = headers.get(CLUSTER, "")
        if meant and self._cluster and meant != self._cluster:
            detail = (
                f"this server is of cluster {self._cluster}, not of {meant[:64]}: look at the"
                f" addresses; if the cluster was founded anew, leave {CLUSTER} out"
            )
            return "wrong-cluster", detail, {}
        if self._under_way >= MOST_REQUESTS:
            return "overloaded", f"{MOST_REQUESTS} requests are under way", {"Retry-After": "1"}
        return None

    def _may(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        # Both are always compared, in constant time.
        same = secrets.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        return same and scheme.lower() == "bearer"


def _name(host: str) -> str:
    """`Host` without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
