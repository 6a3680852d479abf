"""Whether whoever says Hello is who he says: the question that each server asks at its door.

Rules. With TLS the certificate tells cluster, role and name, and Hello must say the same. Without,
which is on loopback only, it is the credential. Either way a worker must be known to the ledger by
its key, so that one that was removed stays outside. Whoever has nothing to show may say that he
wants to join, and is heard on that alone (`join_desk`).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from grampus.cluster.join_token import secret_hash
from grampus.protocol import Hello
from grampus.rpc.subject import SERVER, WORKER, Subject

JOIN = "join"


class Admission:
    """`worker_key(name)` reads the ledger (`tokens.worker_key`); it must not block."""

    def __init__(
        self,
        cluster: str,
        worker_key: Callable[[str], str | None],
        *,
        encrypted: bool,
        server_secret: str = "",
    ) -> None:
        """`server_secret` is what servers share where connections are not `encrypted`."""
        self._cluster = cluster
        self._worker_key = worker_key
        self._encrypted = encrypted
        self._server_secret = server_secret

    def elsewhere(self, hello: Hello) -> str:
        """Why he means another cluster; "" when he means this one, or knows none yet."""
        if not hello.cluster or hello.cluster == self._cluster:
            return ""
        return f"this is cluster {self._cluster}, not {hello.cluster}"

    def refuses(self, hello: Hello, subject: Subject | None) -> str:
        """Why not; "" lets him in, in the role of his Hello. Nothing of a secret is told."""
        if why := self.elsewhere(hello):
            return why
        if hello.role == JOIN:
            return ""
        if hello.role not in (SERVER, WORKER):
            return "a node is a server or a worker"
        return self._shown(hello, subject) if self._encrypted else self._told(hello)

    def _shown(self, hello: Hello, subject: Subject | None) -> str:
        if subject is None:
            return "this node has no certificate: let it join with a join token"
        # The connection has looked at this already; nothing here relies on that.
        if subject.cluster != self._cluster:
            return f"the certificate is for {subject}"
        if (subject.role, subject.name) != (hello.role, hello.node):
            return f"the certificate is for {subject}, not for {hello.role} {hello.node}"
        if subject.role == WORKER and not _same(self._worker_key(subject.name), subject.key):
            return _removed(subject.name)
        return ""

    def _told(self, hello: Hello) -> str:
        if hello.role == WORKER:
            known = _same(self._worker_key(hello.node), secret_hash(hello.credential))
            return "" if known else _removed(hello.node)
        return "" if _same(self._server_secret, hello.credential) else "wrong credential"


def _same(known: str | None, shown: str) -> bool:
    """Nothing is the same as what is not there."""
    return bool(known) and hmac.compare_digest(str(known).encode(), shown.encode())


def _removed(name: str) -> str:
    return (
        f"worker {name} is not known here by this key: it was removed, has joined anew elsewhere,"
        " or this server is behind the others; let it join with a join token"
    )
