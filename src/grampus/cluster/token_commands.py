"""What the ledger can be asked to change about who may join. The rules of `commands` hold here."""

from __future__ import annotations

from msgspec import Struct


class CreateToken(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="token-create"
):
    """Lets one node join. Accepted: "created", also when it is there already."""

    at: int
    id: str
    #: `secret_hash` of its secret.
    hash: str
    role: str
    #: The one name that it is for; "" is any that nobody has.
    name: str
    expires: int


class UseToken(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="token-use"):
    """A node joins. Accepted: "admitted"; again for the same node and key, until it expires."""

    at: int
    id: str
    hash: str
    role: str
    name: str
    #: By which the node will be known: hash of its public key, or of its credential.
    key: str


class RevokeToken(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="token-revoke"
):
    """Accepted: "revoked". Who has joined with it stays."""

    at: int
    id: str


class RevokeWorker(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="worker-revoke"
):
    """The key of this worker counts no more. Accepted: "revoked"."""

    at: int
    name: str


TokenCommand = CreateToken | UseToken | RevokeToken | RevokeWorker
