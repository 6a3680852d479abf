"""Becoming a node of a cluster, and staying one: tokens, credentials, certificates."""

from __future__ import annotations

from msgspec import Struct


class GetAuthority(Struct, frozen=True, array_like=True, tag="get-authority"):
    """Asks a server for the certificate of its cluster's authority, before it is trusted."""


class AuthorityIs(Struct, frozen=True, array_like=True, tag="authority"):
    """`certificate` as PEM; empty where there is no TLS. To be compared with the token's hash."""

    certificate: bytes


class Join(Struct, frozen=True, array_like=True, tag="join"):
    """Asks to become a node; answered by `Joined`. Repeated with the same key, it gets the same
    answer."""

    version: int
    #: Id and secret of the join token.
    token: str
    secret: str
    #: `server` or `worker`.
    role: str
    name: str
    #: Where a server listens for nodes, and by what else it is called.
    address: str
    hosts: tuple[str, ...]
    #: A request for a certificate (DER); empty where there is no TLS.
    request: bytes
    #: Hash of its public key; without TLS of the credential that it will show.
    key: str

    def __repr__(self) -> str:
        return f"Join(token={self.token!r}, role={self.role!r}, name={self.name!r})"


class Joined(Struct, frozen=True, array_like=True, tag="joined"):
    """What the new node needs to know."""

    cluster: str
    history: str
    #: Without TLS: what a server shows to the others; empty for a worker, which has its own.
    credential: str
    #: With TLS: the node's certificate with the authority's behind it, and the authority's, as PEM.
    certificate: bytes
    ca: bytes
    #: The authority's key, for a server.
    ca_key: bytes
    #: Addresses of servers, for nodes.
    servers: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Joined(cluster={self.cluster!r}, servers={self.servers!r})"


class Renew(Struct, frozen=True, array_like=True, tag="renew"):
    """A node asks for a new certificate for its key, over a connection made with the old one."""

    request: bytes
    hosts: tuple[str, ...] = ()


class Renewed(Struct, frozen=True, array_like=True, tag="renewed"):
    certificate: bytes
